"""The queue may deliver messages twice, late, or with garbage, and may have jobs that always fail: other work goes on.

The tests share one installation and run in the order of this file.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from occsite.launch.embedded import redis_url
from storage.queues import Queue
from tests.faults.gates import kill_all, stopped
from tests.faults.journal import TERMINAL, Attempt, Outcome
from tests.faults.load import answers, load
from tests.faults.wrecks import MIB, accept
from tests.support.installation import PATIENCE, RECOVERY, Installation, bytes_of
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 65536
TASKS = tuple(f"storage.{name}" for name in ("ingest", "maintain", "sweep", "probe", "survey", "reclaim"))
ATTEMPTS = 5  # A job has failed after this many attempts.


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(INGEST_WORKERS="3", CHUNK_SIZE=str(CHUNK_SIZE), RECLAIM_GRACE="1")


# -- messages --------------------------------------------------------------


def test_every_task_may_be_delivered_twice_at_once_and_late(installation: Installation, chance: random.Random) -> None:
    journal = installation.journal
    standing = journal.upload(bytes_of("rebalanced", 20 * CHUNK_SIZE), "rebalanced")
    with load(installation, "while tasks come twice", chance, chunk_size=CHUNK_SIZE) as attempts:
        for i in range(6):
            journal.order(f"/rebalance/{standing.file_hash}", replication_factor=(5, 2, 3)[i % 3])
            for task in chance.sample(TASKS, len(TASKS)):
                installation.send(task, times=2)
                installation.send(task, times=2, countdown=chance.uniform(1, 5))
            time.sleep(1)
    assert {attempt.outcome for attempt in attempts} == {Outcome.ACKNOWLEDGED}, answers(attempts)
    installation.settle("every task delivered twice, at once and late")


def test_a_task_that_comes_again_while_its_job_is_done_does_not_do_it_again(installation: Installation) -> None:
    gates = installation.gates
    gates.close("ingest.write")
    attempt = accept(installation, "its task came again", bytes_of("its task came again", MIB))
    holder = gates.await_arrival("ingest.write")
    installation.send("storage.ingest", times=2)
    installation.journal.delete(installation.journal.upload(b"", "has no chunks, and no phase to be held at").file_hash)
    assert gates.held("ingest.write") == [holder]
    gates.open("ingest.write")
    wait_until(lambda: installation.journal.job_state(attempt) == "succeeded", PATIENCE, lambda: str(attempt))
    installation.settle("a task delivered again while its job is done")


def test_messages_that_nobody_understands_hold_up_nobody(installation: Installation) -> None:
    system = installation.system
    before = system.pids()
    installation.send("storage.unknown", times=3)
    installation.send("storage.ingest", arguments=["too many"])
    upload_some(installation, "after tasks that nobody understands")
    assert system.pids() == before
    with redis.Redis.from_url(redis_url(system.storage_dir)) as client:
        for queue in Queue:
            client.lpush(queue, b"not a message")  # The worker that reads this message ends and is restarted.
    upload_some(installation, "after what is no message")
    installation.settle("messages that nobody understands")


def upload_some(installation: Installation, label: str) -> None:
    for i in range(5):
        attempt = installation.journal.upload(bytes_of(f"{label} {i}", MIB), f"{label} {i}")
        assert attempt.status == 201, attempt


# -- jobs that cannot succeed ----------------------------------------------


def flip(staged: Path) -> None:
    with staged.open("r+b") as file:
        file.seek(MIB // 2)
        file.write(bytes(8))


def truncate(staged: Path) -> None:
    with staged.open("r+b") as file:
        file.truncate(MIB // 2)


def remove(staged: Path) -> None:
    staged.unlink()


@pytest.mark.parametrize("damage", [flip, truncate, remove])
def test_an_upload_whose_staged_bytes_are_damaged_fails_alone(
    installation: Installation, damage: Callable[[Path], None]
) -> None:
    journal, staging = installation.journal, installation.system.storage_dir / "staging"
    label = damage.__name__
    with stopped(*installation.system.family("worker")):
        before = set(staging.iterdir())
        poison = accept(installation, f"poison {label}", bytes_of(f"poison {label}", MIB))
        (staged,) = set(staging.iterdir()) - before
        damage(staged)
        others = [accept(installation, f"mate {i} {label}", bytes_of(f"mate {i} {label}", MIB)) for i in range(5)]
    attempts = [poison, *others]
    wait_until(lambda: {journal.job_state(a) for a in attempts} <= TERMINAL, PATIENCE, lambda: str(poison))
    assert {journal.job_state(attempt) for attempt in others} == {"succeeded"}
    end_failed(installation, poison)
    installation.settle("staged bytes damaged while they are queued")


def test_an_upload_that_kills_every_worker_fails_and_holds_up_nobody(installation: Installation) -> None:
    journal, gates = installation.journal, installation.gates
    gates.close("ingest.read")
    poison = accept(installation, "kills its workers", bytes_of("kills its workers", MIB))
    for i in range(ATTEMPTS):
        killer = gates.await_arrival("ingest.read")
        kill_all([killer])
        gates.open("ingest.read")
        begun = time.monotonic()
        other = journal.upload(bytes_of(f"beside poison {i}", MIB), f"beside poison {i}")
        assert other.status == 201, other
        print(f"another upload took {time.monotonic() - begun:.1f} s")
        gates.close("ingest.read")
    gates.open("ingest.read")
    wait_until(lambda: journal.job_state(poison) in TERMINAL, RECOVERY + PATIENCE, lambda: str(poison))
    end_failed(installation, poison)
    installation.settle("an upload that kills its worker each time")


def end_failed(installation: Installation, poison: Attempt) -> None:
    """Check that the job of an upload that cannot be stored has failed and that a download is refused.

    The service answered 202 and cannot store the upload, so the oracle does not expect the file to be there.
    """
    assert installation.journal.job_state(poison) == "failed"
    assert installation.journal.download(poison.file_hash).status == 503
    poison.end(Outcome.UNKNOWN, "its job has failed")
