"""SIGKILL in every phase of ingest, and of all programs: acknowledged uploads stay, and other uploads leave nothing.

All kills come first, and then the tests wait for all recoveries together, because recovery takes as long for one upload
as for all. The tests share one installation and run in the order of this file.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from threading import Thread

import pytest

from tests.faults.gates import kill_all, stopped
from tests.faults.journal import Outcome
from tests.faults.wrecks import MIB, OLD, Wreck, accept, accept_batch, hold_in_every_phase
from tests.support.installation import PATIENCE, Installation, bytes_of, log_of
from tests.support.system import alive, wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

PHASES = tuple(f"ingest.{step}" for step in ("read", "pin", "locate", "count", "write", "record", "close"))
SPARE_PROCESSES = 3
SEGMENT = "a segment of a body that still arrives"
JOIN = "the wait for segments"


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    made = make_installation(INGEST_WORKERS=str(len(PHASES) + SPARE_PROCESSES))
    assert made.journal.upload(OLD, "old").status == 201
    return made


# -- processes of the worker -----------------------------------------------


@pytest.fixture(scope="module")
def zombie(installation: Installation) -> Iterator[tuple[int, Wreck]]:
    """A worker process that is stopped between its writes and its commit, while another process takes over its job."""
    installation.gates.close("ingest.record")
    wreck = Wreck([accept(installation, "zombie's", bytes_of("zombie", 2 * MIB))])
    pid = installation.gates.await_arrival("ingest.record")
    os.kill(pid, signal.SIGSTOP)
    installation.gates.open("ingest.record")
    wreck.strike()
    yield pid, wreck
    if alive([pid]):
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def killed(installation: Installation, zombie: tuple[int, Wreck]) -> Mapping[str, Wreck]:
    """Kill worker processes at several places. Return place → the uploads of the process that was killed there."""
    large = {SEGMENT: kill_at_a_segment(installation), JOIN: kill_who_waits_for_segments(installation)}
    for struck in large.values():
        struck.await_recovery(installation)  # The recovery must end now: later, gates hold the processes that it needs.
    held, wrecks = hold_in_every_phase(installation, PHASES, "process killed in")
    kill_all(list(held.values()))
    installation.gates.open(*PHASES)
    for struck in wrecks.values():
        struck.strike()
    return {**large, **wrecks}


def kill_at_a_segment(installation: Installation) -> Wreck:
    """Kill a process that is about to write a segment of a large body, when half of the body has come."""
    gates = installation.gates
    gates.close("ingest.write")

    def kill() -> None:
        kill_all([gates.await_arrival("ingest.write")])
        gates.open("ingest.write")

    wreck = Wreck([accept(installation, SEGMENT, bytes_of(SEGMENT, 64 * MIB), midway=kill)])
    wreck.strike()
    return wreck


def kill_who_waits_for_segments(installation: Installation) -> Wreck:
    """Kill the process that owns the upload's own job, while other processes store the upload's segments."""
    gates = installation.gates
    gates.close("ingest.join")
    gates.close("ingest.write")
    wreck = Wreck([accept(installation, JOIN, bytes_of(JOIN, 48 * MIB))])
    segments = gates.await_arrival("ingest.write")
    pid = gates.await_arrival("ingest.join")
    assert pid != segments
    kill_all([pid])
    gates.open("ingest.join", "ingest.write")
    wreck.strike()
    return wreck


@pytest.mark.parametrize("where", [SEGMENT, JOIN, *PHASES])
def test_uploads_survive_the_process_that_ingests_them(
    installation: Installation, killed: Mapping[str, Wreck], where: str
) -> None:
    killed[where].await_recovery(installation)


def test_a_process_that_lost_its_lease_brings_nothing_back(
    installation: Installation, zombie: tuple[int, Wreck], killed: Mapping[str, Wreck]
) -> None:
    pid, wreck = zombie
    wreck.await_recovery(installation)
    attempt = wreck.attempts[0]
    assert installation.journal.delete(attempt.file_hash).outcome is Outcome.ACKNOWLEDGED
    os.kill(pid, signal.SIGCONT)

    def came_too_late() -> bool:
        lines = log_of(installation.system, "worker").splitlines()
        return any("ingest.lease_lost" in line and str(attempt.job) in line for line in lines)

    wait_until(came_too_late, PATIENCE)
    assert installation.journal.ask(f"/files/{attempt.file_hash}")[0] == 404


def test_all_is_well_after_processes_were_killed(installation: Installation, killed: Mapping[str, Wreck]) -> None:
    installation.settle("process killed in ingest", since=killed[PHASES[0]].killed_at)


# -- programs --------------------------------------------------------------


@pytest.fixture(scope="module")
def worker_killed(installation: Installation) -> Mapping[str, Wreck]:
    """Kill the worker with all its processes while one process is held in each phase.

    Return phase → the uploads of the process that was held in the phase.
    """
    _, wrecks = hold_in_every_phase(installation, PHASES, "worker killed in")
    processes = installation.system.children("worker")
    installation.system.kill("worker")
    wait_until(lambda: not alive(processes), PATIENCE, lambda: f"{alive(processes)} still run")
    installation.gates.open(*PHASES)
    for struck in wrecks.values():
        struck.strike()
    return wrecks


def once_staged(installation: Installation, victim: str) -> Callable[[], None]:
    """Return a function that kills a program as soon as bytes of a new upload have arrived in staging."""
    staging = installation.system.storage_dir / "staging"
    before = set(staging.iterdir())

    def kill() -> None:
        wait_until(lambda: any(path.stat().st_size for path in set(staging.iterdir()) - before), PATIENCE)
        installation.system.kill(victim)

    return kill


@pytest.fixture(scope="module")
def api_killed(installation: Installation, worker_killed: Mapping[str, Wreck]) -> str:
    """Kill the API while it receives one upload and waits for the ingest of another.

    Return the second upload's hash.
    """
    journal, system = installation.journal, installation.system
    waiting = bytes_of("waited for", MIB)
    file_hash = hashlib.sha256(waiting).hexdigest()
    wait_until(lambda: "worker" in system.pids(), PATIENCE, system.output)
    with stopped(*system.family("worker")):
        client = Thread(target=journal.upload, args=(waiting, "waited for when the API was killed"))
        client.start()
        wait_until(lambda: journal.ask(f"/files/{file_hash}")[0] == 200, PATIENCE)
        cut = journal.upload(bytes_of("cut", 48 * MIB), "cut by the API", midway=once_staged(installation, "api"))
        client.join(PATIENCE)
    assert cut.outcome is Outcome.UNKNOWN
    wait_until(system.is_ready, PATIENCE, system.output)
    return file_hash


@pytest.fixture(scope="module")
def manager_killed(installation: Installation, api_killed: str) -> Mapping[str, Wreck]:
    """Kill the manager, and so all programs, while one upload arrives, some are ingested and one is queued."""
    system, gates, journal = installation.system, installation.gates, installation.journal
    gates.close("ingest.write")
    written = Wreck(accept_batch(installation, "everything killed in ingest.write"))
    gates.await_arrival("ingest.write")
    processes = system.processes()
    with stopped(*system.family("worker")):
        queued = Wreck([accept(installation, "queued when everything was killed", bytes_of("queued", 3 * MIB))])
        cut = journal.upload(bytes_of("cut too", 48 * MIB), "cut by all", midway=once_staged(installation, "manager"))
    assert cut.outcome is Outcome.UNKNOWN
    wait_until(lambda: not alive(processes), PATIENCE, lambda: f"{alive(processes)} still run")
    gates.open("ingest.write")
    system.start()
    written.strike()
    queued.strike()
    return {"ingested": written, "queued": queued}


@pytest.mark.parametrize("phase", PHASES)
def test_uploads_survive_the_worker(
    installation: Installation, worker_killed: Mapping[str, Wreck], manager_killed: object, phase: str
) -> None:
    worker_killed[phase].await_recovery(installation)


def test_an_upload_survives_the_api_that_waits_for_it(
    installation: Installation, api_killed: str, manager_killed: object
) -> None:
    wait_until(lambda: installation.journal.download(api_killed).status == 200, PATIENCE)


@pytest.mark.parametrize("where", ["ingested", "queued"])
def test_uploads_survive_the_end_of_everything(
    installation: Installation, manager_killed: Mapping[str, Wreck], where: str
) -> None:
    manager_killed[where].await_recovery(installation)


def test_all_is_well_after_programs_were_killed(
    installation: Installation, manager_killed: Mapping[str, Wreck]
) -> None:
    installation.settle("worker, API, then everything killed", since=manager_killed["queued"].killed_at)
