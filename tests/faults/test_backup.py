"""Backups and restores that are killed, backups under load, and backups that are older than the volumes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest

from tests.faults.journal import Attempt, Journal, Outcome
from tests.faults.load import load
from tests.support.installation import PATIENCE, Installation, bytes_of
from tests.support.system import PROJECT, START_LIMIT, System, wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

SIZE = 100_000
CHUNK_SIZE = 16384


@pytest.fixture
def target() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="occ-backups-")
    yield folder
    shutil.rmtree(folder)


def begin(system: System, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=system.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def manage(system: System, *arguments: str, status: int = 0) -> str:
    """Run a command of ``manage.py`` to its end, and return what it printed."""
    with begin(system, *arguments) as command:
        said, _ = command.communicate(timeout=2 * PATIENCE)
    assert command.returncode == status, said
    return said


def kill_at(installation: Installation, phase: str, system: System, *arguments: str) -> None:
    """Run a command, and kill it with SIGKILL when it enters the phase."""
    installation.gates.close(phase)
    with begin(system, *arguments) as command:
        pid = installation.gates.await_arrival(phase)
        assert pid == command.pid
        os.kill(pid, signal.SIGKILL)
    installation.gates.open(phase)


def upload(installation: Installation, label: str) -> Attempt:
    attempt = installation.journal.upload(bytes_of(label, SIZE), label)
    assert attempt.status == 201, attempt
    return attempt


def require_all(journal: Journal, attempts: list[Attempt]) -> None:
    for attempt in attempts:
        download = journal.download(attempt.file_hash)
        assert download.outcome is Outcome.ACKNOWLEDGED, (attempt, download)


def asks_for_adoption(installation: Installation) -> bool:
    _, health = installation.journal.ask("/health")
    return any("manage.py adopt" in words for words in health.get("degraded", []))


def test_a_backup_that_is_killed_never_looks_complete_and_holds_up_reclaim_for_minutes_only(
    make_installation: Callable[..., Installation], target: str
) -> None:
    installation = make_installation(CHUNK_SIZE=str(CHUNK_SIZE))
    system = installation.system
    attempts = [upload(installation, f"file {number}") for number in range(20)]
    for phase in ("backup.dump", "backup.copy", "backup.complete"):
        kill_at(installation, phase, system, "backup", target)
        assert "holds no complete backup" in manage(system, "restore", target, "--check", status=1)
    assert "a backup holds reclaim back until" in manage(system, "reclaim", "--dry-run")
    assert 0 < float(installation.run("print_hold")) <= 600
    assert "0 of them" in manage(system, "backup", target, "--dry-run"), "chunks are copied again"
    assert "is complete" in manage(system, "backup", target)
    assert "is whole" in manage(system, "restore", target, "--check")
    require_all(installation.journal, attempts)
    installation.settle("backups killed in each phase")


def test_a_restore_that_is_killed_is_run_again(
    make_installation: Callable[..., Installation], make_system: Callable[..., System], target: str
) -> None:
    installation = make_installation(CHUNK_SIZE=str(CHUNK_SIZE))
    attempts = [upload(installation, f"file {number}") for number in range(20)]
    manage(installation.system, "backup", target)
    gates = {name: value for name, value in installation.system.environment.items() if name == "PHASE_GATES"}
    other = make_system("restored", **gates)
    for phase in ("restore.database", "restore.copy", "restore.write"):
        kill_at(installation, phase, other, "restore", target)
        start = other.serve()
        assert start.wait(START_LIMIT) == 1, "the service starts on half a database"
        assert "has not ended" in other.output()
    said = manage(other, "restore", target)
    assert "is restored" in said
    assert "postgres.before" not in said, "the half of an interrupted restore is taken for a database"
    other.start()
    require_all(Journal(other.base_url), attempts)
    other.stop()
    assert "say --replace" in manage(other, "restore", target, status=1)
    kill_at(installation, "restore.copy", other, "restore", target, "--replace")
    said = manage(other, "restore", target)
    assert len(list(other.storage_dir.glob("postgres.before-*"))) == 1, "the former database is not kept"
    assert "the former database" in said
    other.start()
    require_all(Journal(other.base_url), attempts)


def test_backups_under_load_are_whole(
    make_installation: Callable[..., Installation], target: str, chance: random.Random
) -> None:
    installation = make_installation(RECLAIM_GRACE="0", CHUNK_SIZE=str(CHUNK_SIZE))
    with load(installation, "under load", chance, chunk_size=CHUNK_SIZE):
        for _ in range(3):
            assert "is complete" in manage(installation.system, "backup", target)
    for line in manage(installation.system, "restore", target, "--list").splitlines():
        name = line.split()[0]
        assert f"{name} is whole" in manage(installation.system, "restore", target, "--backup", name, "--check")
    # The backups held reclaim back all the time, so reclaim has much to remove now.
    installation.settle("backups under load", within=4 * PATIENCE)


@pytest.mark.parametrize("since", ["uploads", "uploads and deletions", "uploads, deletions and reclaim"])
def test_a_backup_that_is_older_than_the_volumes_loses_nothing(
    make_installation: Callable[..., Installation], target: str, since: str
) -> None:
    installation = make_installation(RECLAIM_GRACE="0", CHUNK_SIZE=str(CHUNK_SIZE))
    system, journal = installation.system, installation.journal
    first = [upload(installation, f"first {number}") for number in range(4)]
    manage(system, "backup", target)
    late = [upload(installation, f"late {number}") for number in range(4)]
    if "deletions" in since:
        journal.delete(first[0].file_hash)
    if "reclaim" in since:
        manage(system, "reclaim")
    standing = first[1:] if "deletions" in since else first
    system.stop()
    shutil.rmtree(system.storage_dir / "valkey")

    said = manage(system, "restore", target, "--replace")
    assert "Nothing is removed until `manage.py adopt` decides" in " ".join(said.split())
    assert ("chunks that no node had  0" in said) == ("reclaim" not in since), said
    system.start()
    wait_until(lambda: asks_for_adoption(installation), PATIENCE)
    require_all(journal, first)
    assert "-> put the newer database back, or see `manage.py adopt --dry-run`" in manage(system, "doctor", status=1)
    manage(system, "audit")  # Reclaim also runs all the time, without a grace period, unless the service refuses it.
    assert "does not know" in manage(system, "adopt", "--dry-run")
    require_all(journal, first)

    # The restore has kept the newer database. The newer database is put back, and all files that it knows are still
    # there.
    system.stop()
    (kept,) = system.storage_dir.glob("postgres.before-*")
    (system.storage_dir / "postgres").rename(system.storage_dir / "postgres.older")
    kept.rename(system.storage_dir / "postgres")
    system.start()
    require_all(journal, [*standing, *late])

    system.stop()
    (system.storage_dir / "postgres").rename(kept)
    (system.storage_dir / "postgres.older").rename(system.storage_dir / "postgres")
    system.start()
    manage(system, "adopt", "--keep")
    wait_until(lambda: not asks_for_adoption(installation), PATIENCE)
    require_all(journal, first)
