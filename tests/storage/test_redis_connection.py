"""If Redis does not answer, a process waits for the time limit only now and then, and not at each call."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from threading import Thread

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from storage import redis_connection
from storage.redis_connection import Breaker, GuardedPool


def client_of(url: str) -> redis.Redis:
    pool = GuardedPool.from_url(url, socket_timeout=0.2, socket_connect_timeout=0.2, retry=Retry(NoBackoff(), 0))
    return redis.Redis(connection_pool=pool)


@pytest.fixture
def client(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    with client_of(os.environ["REDIS_URL"]) as made:
        yield made


def test_after_a_failure_nothing_is_asked_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with client_of("unix:///nowhere/redis.sock") as client:
        with pytest.raises(redis.ConnectionError):
            client.ping()
        with pytest.raises(redis.ConnectionError, match="not asked"):
            client.ping()
        later = time.monotonic() + 10
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(redis.ConnectionError, match="/nowhere/redis"):
            client.ping()


def test_an_answer_that_does_not_come_counts_as_a_failure(client: redis.Redis, redis_client: redis.Redis) -> None:
    client.ping()
    with pytest.raises(redis.TimeoutError):
        client.blpop(["nothing comes"], 5)
    with pytest.raises(redis.ConnectionError, match="not asked"):
        client.ping()


def test_a_refusal_is_an_answer(client: redis.Redis) -> None:
    client.set("a string", 1)
    with pytest.raises(redis.ResponseError):
        client.lpush("a string", 1)
    assert client.ping()


def test_one_call_finds_out_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connection, "PAUSE", 0.0)
    breaker = Breaker()
    breaker.failed()
    refused: list[bool] = []

    def enter() -> None:
        try:
            breaker.enter()
        except redis.ConnectionError:
            refused.append(True)

    threads = [Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    breaker.succeeded()
    breaker.enter()
