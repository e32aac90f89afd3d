"""Faults and races under load: many clients at once, Redis emptied, reclaim without grace, and nothing is lost.

The tests share one installation and run in the order they stand in.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import redis

from occsite.embedded import redis_url
from tests.faults.conftest import PATIENCE, Installation, bytes_of, log_of
from tests.faults.journal import Attempt, Outcome
from tests.faults.wrecks import MIB, Wreck, accept
from tests.system.conftest import wait_until

pytestmark = pytest.mark.system

CHUNK_SIZE = 65536


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(INGEST_WORKERS="2", CHUNK_SIZE=str(CHUNK_SIZE))


@contextmanager
def reclaiming(installation: Installation, stop: Path) -> Iterator[Counter[str]]:
    """Reclaim runs without any grace and without a pause while the body does; the body's end says what it did."""
    done: Counter[str] = Counter()
    with installation.start("reclaim_until", repr(str(stop))) as process:
        try:
            yield done
        finally:
            stop.touch()
            output, _ = process.communicate(timeout=PATIENCE)
    done.update(json.loads(output))


def test_emptying_redis_harms_no_upload_and_no_download(installation: Installation) -> None:
    journal = installation.journal
    with redis.Redis.from_url(redis_url(installation.system.storage_dir)) as client:

        def work(i: int) -> None:
            data = bytes_of(f"flush {i}", (1 + i % 5) * 300_000)
            attempt = journal.upload(data, f"uploaded during a flush {i}")
            if i % 3 == 0:
                client.flushall()
            assert journal.download(attempt.file_hash).outcome is Outcome.ACKNOWLEDGED

        with ThreadPoolExecutor(4) as clients:
            list(clients.map(work, range(24)))
    assert {attempt.outcome for attempt in journal.attempts} == {Outcome.ACKNOWLEDGED}
    installation.oracle.check()


def test_a_wake_up_that_is_lost_costs_a_sweep(installation: Installation) -> None:
    installation.system.kill("worker")  # so that nobody takes the message before Redis loses it
    wreck = Wreck([accept(installation, "its wake-up was lost", bytes_of("unheard", MIB))])
    with redis.Redis.from_url(redis_url(installation.system.storage_dir)) as client:
        client.flushall()
    wreck.await_recovery(installation)


def test_identical_uploads_at_once_make_one_file_that_is_deleted_once(installation: Installation) -> None:
    journal = installation.journal
    data = bytes_of("identical", MIB)
    with ThreadPoolExecutor(20) as clients:
        uploads = list(clients.map(lambda i: journal.upload(data, f"identical {i}"), range(20)))
        assert Counter(attempt.status for attempt in uploads) == {201: 1, 200: 19}
        file_hash = uploads[0].file_hash
        deletes = list(clients.map(lambda _: journal.delete(file_hash), range(20)))
        assert Counter(attempt.status for attempt in deletes) == {204: 1, 404: 19}
    assert journal.download(file_hash).status == 404


def test_uploads_and_deletes_of_one_file_at_once_leave_it_whole_or_gone(installation: Installation) -> None:
    journal = installation.journal
    data = bytes_of("contested", MIB)

    def work(i: int) -> Attempt:
        attempt = journal.upload(data, f"contested {i}")
        return journal.delete(attempt.file_hash) if i % 4 == 0 else attempt

    with ThreadPoolExecutor(10) as clients:
        list(clients.map(work, range(30)))
    installation.oracle.check()


def test_deletes_and_reclaim_spare_the_chunks_of_others(installation: Installation, tmp_path: Path) -> None:
    journal = installation.journal
    pool = [bytes_of(f"shared chunk {i}", CHUNK_SIZE) for i in range(8)]
    numbers = count()

    def work(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(10):
            data = b"".join(choice.sample(pool, 4)) + f"tail {next(numbers)}".encode()
            attempt = journal.upload(data, f"of shared chunks {seed}")
            assert attempt.outcome is Outcome.ACKNOWLEDGED, attempt
            assert journal.download(attempt.file_hash).outcome is Outcome.ACKNOWLEDGED
            if choice.random() < 0.8:
                journal.delete(attempt.file_hash)

    with reclaiming(installation, tmp_path / "stop") as done, ThreadPoolExecutor(4) as clients:
        list(clients.map(work, range(4)))
    print(dict(done))
    assert done["removed"] > 0
    installation.oracle.check()


@pytest.mark.parametrize("phase", ["ingest.locate", "ingest.write", "ingest.record", "ingest.close"])
def test_reclaim_spares_what_an_upload_relies_on(installation: Installation, tmp_path: Path, phase: str) -> None:
    """The only file that has the chunks is deleted, and reclaimed, while an upload of them stands still."""
    journal, gates = installation.journal, installation.gates
    data = bytes_of(f"relied on in {phase}", 4 * CHUNK_SIZE)
    tail = f"only before {phase}".encode()
    before = journal.upload(data + tail, f"had its chunks before {phase}")
    gates.close(phase)
    attempt = accept(installation, f"relies on its chunks in {phase}", data)
    gates.await_arrival(phase)
    journal.delete(before.file_hash)
    with reclaiming(installation, tmp_path / "stop"):
        # The chunk that only the deleted file had goes; when the pass is over, the others have been looked at too.
        wait_until(lambda: not copies(installation, tail), PATIENCE)
    assert len(copies(installation, data[:CHUNK_SIZE])) == 3
    gates.open(phase)
    wait_until(lambda: journal.job_state(attempt) == "succeeded", PATIENCE, lambda: str(attempt))
    assert journal.download(attempt.file_hash).outcome is Outcome.ACKNOWLEDGED


def copies(installation: Installation, chunk: bytes) -> list[Path]:
    """Looked up in the folders, past all our code."""
    chunk_hash = hashlib.sha256(chunk).hexdigest()
    return list(installation.system.storage_dir.glob(f"nodes/*/chunks/{chunk_hash[:2]}/{chunk_hash}"))


def test_all_is_well_after_the_load(installation: Installation) -> None:
    installation.oracle.check()
    for program in ("api", "worker", "maintenance"):
        assert "deadlock detected" not in log_of(installation.system, program), program
