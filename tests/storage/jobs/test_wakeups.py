from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
from celery import current_app

from storage.jobs import wakeups
from storage.models import Job
from tests.support.system import wait_until

wake = wakeups.wake  # This is the real function, even where a test replaces ``wakeups.wake``.


@pytest.fixture
def sent(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, **_: messages.append(name))
    return messages


def test_a_wake_up_that_is_on_its_way_is_not_sent_again(sent: list[str]) -> None:
    """RACES 28: while a message is on its way, no second one is sent to the same queue."""
    for _ in range(3):
        wake(Job.Queue.INGEST)
    wake(Job.Queue.MAINTENANCE)
    assert sent == ["storage.ingest", "storage.maintain"]
    wakeups.taken(Job.Queue.INGEST)
    wake(Job.Queue.INGEST)
    assert sent.count("storage.ingest") == 2


def test_a_lost_wake_up_blocks_the_next_one_only_for_a_while(sent: list[str], redis_client: redis.Redis) -> None:
    wake(Job.Queue.INGEST)
    assert 0 < redis_client.ttl("occ:wakeup:ingest") <= wakeups.PENDING_SECONDS


def test_without_redis_a_wake_up_is_lost_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(redis.Redis, "execute_command", away)
    monkeypatch.setattr(redis.client.Pipeline, "execute", away)
    job = Job()
    wake(Job.Queue.INGEST)
    wakeups.taken(Job.Queue.INGEST)
    wakeups.announce(job)
    assert wakeups.await_change(job.pk, 0.1) is None
    assert not wakeups.listen(Job.Queue.INGEST, 0.1)


def test_everybody_who_waits_for_a_job_hears_of_its_end(redis_client: redis.Redis) -> None:
    job = Job()
    assert not wakeups.await_change(job.pk, 0.01)
    wakeups.announce_with({job: {"said": 1}})
    assert wakeups.await_change(job.pk, 1) == {"said": 1}
    assert wakeups.await_change(job.pk, 1) == {"said": 1}, "the announcement stays for the next waiter"
    assert redis_client.ttl(f"occ:job:{job.pk}") > 0


def test_who_listens_hears_a_wake_up_and_no_task_is_sent(sent: list[str], redis_client: redis.Redis) -> None:
    heard: list[bool] = []
    listener = threading.Thread(target=lambda: heard.append(wakeups.listen(Job.Queue.INGEST, 30)))
    listener.start()
    wait_until(lambda: redis_client.info("clients")["blocked_clients"] == 1, 10)
    wake(Job.Queue.INGEST)
    listener.join()
    assert heard == [True]
    assert sent == []


def test_a_wake_up_that_nobody_heard_is_there_for_who_listens_next(sent: list[str]) -> None:
    for _ in range(3):  # Several wake-ups come, as when all workers are busy.
        wake(Job.Queue.INGEST)
        wakeups.taken(Job.Queue.INGEST)
    assert sent == ["storage.ingest"] * 3
    assert wakeups.listen(Job.Queue.INGEST, 0.01)
    assert not wakeups.listen(Job.Queue.INGEST, 0.01)


def test_who_looks_by_itself_is_not_woken_meanwhile(sent: list[str], redis_client: redis.Redis) -> None:
    wakeups.hush(Job.Queue.INGEST, 30)
    wake(Job.Queue.INGEST)
    assert sent == []
    assert redis_client.ttl("occ:wakeup:ingest") <= 30, "should it not come to that, others are woken again"
    wakeups.taken(Job.Queue.INGEST)
    wake(Job.Queue.INGEST)
    assert sent == ["storage.ingest"]
