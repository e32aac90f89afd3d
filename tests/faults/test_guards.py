"""Situations whose outcome depends on a single guard. Most situations are races, and gates hold processes at the
decisive moment.

Each guard has a mutant in ``mutants.py``. The tests share one installation, except a test that needs another one.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disks import copies, emptied, flip, nodes_dir
from tests.faults.journal import Attempt, Outcome
from tests.faults.load import reclaiming
from tests.faults.wrecks import accept
from tests.support.installation import PATIENCE, Installation, bytes_of, log_of
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 16384
FILES = 24  # The number of files, of one chunk each. All chunks share one register.
TAU = 2


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(CHUNK_SIZE=str(CHUNK_SIZE), INGEST_WORKERS="3")


@pytest.fixture(scope="module")
def crowded(make_installation: Callable[..., Installation]) -> Installation:
    """An installation whose sketches have one register, which counts up to two.

    All chunks of a node share the node's only register.
    """
    return make_installation(CHUNK_SIZE=str(CHUNK_SIZE), N_PRIME="1", TAU=str(TAU))


def test_a_removal_that_was_planned_spares_a_chunk_that_is_needed_again(
    installation: Installation, tmp_path: Path
) -> None:
    journal, gates = installation.journal, installation.gates
    chunk = bytes_of("needed again", CHUNK_SIZE)
    first = journal.upload(chunk, "needed again")
    journal.delete(first.file_hash)
    gates.close("reclaim.trash")
    with reclaiming(installation, tmp_path / "stop"):
        try:
            gates.await_arrival("reclaim.trash")
            assert journal.upload(chunk, "needed again").status == 201
            gates.close("reclaim.purge")  # The purge would put back copies that were removed by mistake.
            gates.open("reclaim.trash")
            gates.await_arrival("reclaim.purge")
            assert len(copies(installation, chunk)) == 3, "copies that are needed went into the trash"
        finally:
            gates.open("reclaim.trash", "reclaim.purge")
    assert journal.download(first.file_hash).outcome is Outcome.ACKNOWLEDGED
    installation.settle("a removal planned before a chunk was needed again")


def test_what_an_upload_has_found_is_not_reclaimed_before_it_is_recorded(
    installation: Installation, tmp_path: Path
) -> None:
    """The only file that has the chunk is deleted while a gate holds an upload that has found the chunk's copies."""
    journal, gates = installation.journal, installation.gates
    chunk, tail = bytes_of("found", CHUNK_SIZE), b"only the first file has this"
    first = journal.upload(chunk + tail, "had the chunk before")
    gates.close("ingest.write")
    attempt = accept(installation, "found the chunk", chunk)
    gates.await_arrival("ingest.write")
    journal.delete(first.file_hash)
    with reclaiming(installation, tmp_path / "stop"):
        # The pass that removes the copies of `tail` looks at the copies of `chunk` too.
        wait_until(lambda: not copies(installation, tail), PATIENCE)
    assert len(copies(installation, chunk)) == 3, "copies that an upload relies on were reclaimed"
    gates.open("ingest.write")
    wait_until(lambda: journal.job_state(attempt) == "succeeded", PATIENCE, lambda: str(attempt))
    assert journal.download(attempt.file_hash).outcome is Outcome.ACKNOWLEDGED
    installation.settle("a deletion and a reclaim between finding copies and recording them")


def test_a_worker_that_lost_its_lease_commits_nothing_while_its_successor_works(installation: Installation) -> None:
    journal, gates = installation.journal, installation.gates
    gates.close("ingest.record")
    attempt = accept(installation, "taken over", bytes_of("taken over", 3 * CHUNK_SIZE))
    zombie = gates.await_arrival("ingest.record")
    os.kill(zombie, signal.SIGSTOP)
    try:
        gates.close("ingest.read")
        gates.open("ingest.record")
        # Another worker takes the job when the lease of the zombie has ended.
        successor = gates.await_arrival("ingest.read")
        assert successor != zombie
    finally:
        os.kill(zombie, signal.SIGCONT)
    wait_until(lambda: gave_up(installation, attempt) or journal.job_state(attempt) != "running", PATIENCE)
    assert journal.job_state(attempt) == "running", "a worker without a lease has ended the job"
    gates.open("ingest.read")
    wait_until(lambda: journal.job_state(attempt) == "succeeded", PATIENCE, lambda: str(attempt))
    installation.settle("a worker stopped for longer than its lease")


def gave_up(installation: Installation, attempt: Attempt) -> bool:
    lines = log_of(installation.system, "worker").splitlines()
    return any("ingest.lease_lost" in line and str(attempt.job) in line for line in lines)


def test_a_chunk_is_counted_before_it_is_written(installation: Installation) -> None:
    """A worker that dies between count and write leaves a count that is too high, and never a copy that the sketches
    deny.
    """
    chunk = bytes_of("counted first", CHUNK_SIZE)
    installation.gates.close("ingest.write")
    attempt = accept(installation, "counted first", chunk)
    installation.gates.await_arrival("ingest.write")
    assert copies(installation, chunk) == {}
    counted = [node_id for node_id, register in registers(installation, chunk).items() if register]
    assert len(counted) == 3, f"about to be written to three nodes, and counted on {counted}"
    installation.gates.open("ingest.write")
    wait_until(lambda: installation.journal.job_state(attempt) == "succeeded", PATIENCE, lambda: str(attempt))
    assert set(copies(installation, chunk)) == set(counted)
    installation.settle("held between count and write")


def test_a_surplus_copy_stays_if_the_others_have_gone_bad_since_the_plan(installation: Installation) -> None:
    gates = installation.gates
    chunk = bytes_of("surplus", CHUNK_SIZE)
    attempt = installation.journal.upload(chunk, "surplus", factor=2)
    installation.journal.order(f"/rebalance/{attempt.file_hash}", replication_factor=5)
    wait_until(lambda: len(copies(installation, chunk)) == 5, PATIENCE)
    gates.close("rebalance.trim")
    status, answer = installation.journal.order(f"/rebalance/{attempt.file_hash}", replication_factor=2)
    assert status == 202, answer
    gates.await_arrival("rebalance.trim")
    held = copies(installation, chunk)
    for node_id in sorted(held)[1:]:
        flip(held[node_id])
    gates.open("rebalance.trim")
    wait_until(lambda: installation.journal.ask(f"/jobs/{answer['job']}")[1]["state"] == "succeeded", PATIENCE)
    assert len(copies(installation, chunk)) == 5, "a copy went although too few of the others were good"
    installation.journal.ask(f"/verify/{attempt.file_hash}?deep=true")
    installation.settle("four of five copies flipped between plan and trim")


def test_a_chunk_is_not_forgotten_before_every_node_has_been_asked(installation: Installation, tmp_path: Path) -> None:
    chunk = bytes_of("a node with a copy is away", CHUNK_SIZE)
    attempt = installation.journal.upload(chunk, "a node with a copy is away")
    away = min(copies(installation, chunk))
    with emptied(nodes_dir(installation) / away), reclaiming(installation, tmp_path / "first"):
        assert installation.journal.delete(attempt.file_hash).outcome is Outcome.ACKNOWLEDGED
        wait_until(lambda: not copies(installation, chunk), PATIENCE)
    assert list(copies(installation, chunk)) == [away]
    with reclaiming(installation, tmp_path / "second"):
        why = "the row was forgotten, so nothing knows any more that the copy may go"
        wait_until(lambda: not copies(installation, chunk), PATIENCE, lambda: why)
    installation.settle("reclaim while a node with a copy is away")


def test_a_counter_that_is_full_denies_nothing_when_the_others_are_gone(crowded: Installation, tmp_path: Path) -> None:
    crowded.gates.close("rebuild.open")  # This gate keeps rebuilds from replacing the sketches.
    chunks = [bytes_of(f"shares its register {i}", CHUNK_SIZE) for i in range(FILES)]
    kept, *others = [crowded.journal.upload(chunk, "shares its register") for chunk in chunks]
    assert {attempt.status for attempt in (kept, *others)} == {201}
    for attempt in others:
        assert crowded.journal.delete(attempt.file_hash).outcome is Outcome.ACKNOWLEDGED
    with reclaiming(crowded, tmp_path / "stop"):
        wait_until(lambda: not any(copies(crowded, chunk) for chunk in chunks[1:]), PATIENCE)

    held = copies(crowded, chunks[0])
    assert {registers(crowded, chunks[0])[node_id] for node_id in held} == {TAU}, "a full counter was counted down"
    assert crowded.journal.download(kept.file_hash).outcome is Outcome.ACKNOWLEDGED
    crowded.gates.open("rebuild.open")
    exact = {node_id: int(node_id in held) for node_id in registers(crowded, chunks[0])}
    wait_until(lambda: registers(crowded, chunks[0]) == exact, 2 * PATIENCE, lambda: str(registers(crowded, chunks[0])))
    assert crowded.journal.download(kept.file_hash).outcome is Outcome.ACKNOWLEDGED
    crowded.settle("full counters, and all chunks but one reclaimed")


def registers(installation: Installation, chunk: bytes) -> dict[str, Any]:
    """Map each node id to the node's register of a chunk, as routing reads it."""
    status, route = installation.journal.ask(f"/route/{hashlib.sha256(chunk).hexdigest()}")
    assert status == 200, route
    return {candidate["node_id"]: candidate["register"] for candidate in route["candidates"]}
