"""Reclaim without a grace period races uploads and deletions of the same chunks: no chunk in use is removed.

The tests share one installation and run in the order of this file.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from tests.faults.load import answers, reclaiming
from tests.faults.wrecks import accept
from tests.support.installation import PATIENCE, Installation, bytes_of, copies, log_of
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 65536
CLIENTS = 6


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(INGEST_WORKERS="2", CHUNK_SIZE=str(CHUNK_SIZE))


def test_deletes_and_reclaim_spare_the_chunks_of_others(
    installation: Installation, chance: random.Random, tmp_path: Path
) -> None:
    """Every file shares chunks with other files. Half of the files may even be equal to another file."""
    journal = installation.journal
    pool = [bytes_of(f"shared chunk {i}", CHUNK_SIZE) for i in range(8)]
    numbers = count()

    def work(draw: random.Random) -> None:
        for _ in range(20):
            own = draw.random() < 0.5
            data = b"".join([*draw.sample(pool, 4), f"tail {next(numbers)}".encode()] if own else draw.sample(pool, 2))
            attempt = journal.upload(data, f"of shared chunks, {'own' if own else 'anybody'}'s")
            download = journal.download(attempt.file_hash)
            if own:
                assert (attempt.status, download.status) == (201, 200), (attempt, download)
            if draw.random() < 0.8:
                journal.delete(attempt.file_hash)

    with reclaiming(installation, tmp_path / "stop") as done, ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(work, [random.Random(chance.random()) for _ in range(CLIENTS)]))
    print(dict(done), answers(journal.attempts))
    assert done["removed"] > 0
    installation.settle("reclaim against uploads and deletions of shared chunks")


@pytest.mark.parametrize("phase", ["ingest.locate", "ingest.write", "ingest.record", "ingest.close"])
def test_reclaim_spares_what_an_upload_relies_on(installation: Installation, tmp_path: Path, phase: str) -> None:
    """The only file with the chunks is deleted, and reclaim runs, while a gate holds an upload of the same chunks."""
    journal, gates = installation.journal, installation.gates
    data = bytes_of(f"relied on in {phase}", 4 * CHUNK_SIZE)
    tail = f"only before {phase}".encode()
    before = journal.upload(data + tail, f"had its chunks before {phase}")
    gates.close(phase)
    attempt = accept(installation, f"relies on its chunks in {phase}", data)
    gates.await_arrival(phase)
    journal.delete(before.file_hash)
    with reclaiming(installation, tmp_path / "stop"):
        # Only the deleted file has the chunk `tail`. The pass of reclaim that removes `tail` also looks at the other
        # chunks.
        wait_until(lambda: not copies(installation, tail), PATIENCE)
    assert len(copies(installation, data[:CHUNK_SIZE])) == 3
    gates.open(phase)
    wait_until(lambda: journal.job_state(attempt) == "succeeded", PATIENCE, lambda: str(attempt))
    installation.settle("reclaim while an upload that needs the chunks stands still")


def test_nobody_was_locked_out_for_good(installation: Installation) -> None:
    for program in ("api", "worker", "maintenance"):
        assert "deadlock detected" not in log_of(installation.system, program), program
