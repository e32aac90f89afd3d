from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest
import redis

from storage.accounts import rates
from storage.conf import Configuration
from storage.exceptions import ConfigurationError, TooManyRequests
from storage.models import Scope
from storage.redis_connection import connect
from tests.support.api import WholeClient as Client
from tests.support.api import assert_nothing_left, assert_problem
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import bearer, keys_on

__all__ = ["keys_on"]


@pytest.fixture
def limited(cluster: ClusterUnderTest, settings: Any) -> ClusterUnderTest:
    """A cluster that lets every client ask five times an hour."""
    settings.OCC = dataclasses.replace(settings.OCC, rate_limit="5/hour")
    return cluster


def test_400_hits_at_once_let_exactly_100_through(cluster: ClusterUnderTest, settings: Any) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, rate_limit="100/minute")

    def hit(_: int) -> bool:
        try:
            rates.take("somebody")
        except TooManyRequests:
            return False
        return True

    with ThreadPoolExecutor(40) as clients:
        assert sum(clients.map(hit, range(400))) == 100
    rates.take("somebody else")


def test_a_client_that_asks_too_often_is_told_when_to_come_back(limited: ClusterUnderTest) -> None:
    assert [Client().get("/files").status_code for _ in range(5)] == [200] * 5
    refused = Client().get("/files")
    assert assert_problem(refused, 429)["code"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 3600
    told = [refused.headers[f"RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")]
    assert told == ["5", "0", refused.headers["Retry-After"]]
    assert Client().get("/files", REMOTE_ADDR="192.0.2.7").status_code == 200, "another address"
    assert Client().get("/health").status_code == 200


def test_a_refused_upload_leaves_nothing(limited: ClusterUnderTest) -> None:
    for _ in range(5):
        Client().get("/files")
    assert_problem(Client().put("/upload/a", b"bytes", content_type="text/plain"), 429)
    assert_nothing_left(limited)


def test_each_key_has_requests_of_its_own(limited: ClusterUnderTest, keys_on: ClusterUnderTest) -> None:
    ann, bob = bearer("ann"), bearer("bob")
    assert [Client().get("/files", headers=ann).status_code for _ in range(6)] == [200] * 5 + [429]
    assert Client().get("/files", headers=bob).status_code == 200
    assert [Client().get("/files").status_code for _ in range(6)] == [401] * 5 + [429], "without a key, by address"
    assert Client().get("/files", headers=bob).status_code == 200


def test_what_a_key_does_not_allow_counts_too(limited: ClusterUnderTest, keys_on: ClusterUnderTest) -> None:
    headers = bearer("ann", [Scope.READ])
    assert [Client().delete("/files/x", headers=headers).status_code for _ in range(6)] == [403] * 5 + [429]


def test_without_redis_every_request_is_let_through(limited: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> Any:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(type(connect().connection_pool), "get_connection", away)
    for _ in range(10):
        rates.take("somebody")


def test_without_a_limit_redis_is_not_asked(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_limiter", lambda: pytest.fail("asked"))
    assert Client().get("/files").status_code == 200


@pytest.mark.parametrize(
    "text", ["100", "0/minute", "-1/hour", "many/day", "100/minutes", "1.5/second", "100 / minute"]
)
def test_a_limit_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="RATE_LIMIT"):
        Configuration.from_environment({"RATE_LIMIT": text})
    assert Configuration.from_environment({"RATE_LIMIT": " 100/Minute "}).rate_limit == "100/minute"


# -- blocks ------------------------------------------------------------------


def counted(client: redis.Redis) -> int:
    """The number of requests that Redis has counted."""
    return sum(client.llen(key) for key in client.scan_iter("*occ:rates*"))


def through(subject: str, hits: int) -> int:
    """Send requests one after the other; returns how many were let through."""

    def hit() -> bool:
        try:
            rates.take(subject)
        except TooManyRequests:
            return False
        return True

    return sum(hit() for _ in range(hits))


def test_under_a_high_limit_a_busy_client_seldom_costs_a_question(
    cluster: ClusterUnderTest, settings: Any, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, rate_limit="100000/minute")
    limiter = rates._limiter()
    questions = Mock(wraps=limiter.hit)
    monkeypatch.setattr(limiter, "hit", questions)
    assert through("busy", 1000) == 1000
    assert questions.call_count < 50
    assert 1000 <= counted(redis_client) <= 1100


def test_a_slow_client_uses_up_no_more_than_it_asks(
    cluster: ClusterUnderTest, settings: Any, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, rate_limit="100000/minute")
    monkeypatch.setattr(rates, "BLOCK_SECONDS", 0)  # Every block has ended when the next request comes.
    assert through("slow", 100) == 100
    assert counted(redis_client) == 100


def test_blocks_let_no_more_through_than_the_limit(
    cluster: ClusterUnderTest, settings: Any, redis_client: redis.Redis
) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, rate_limit="5000/hour")
    with ThreadPoolExecutor(8) as clients:
        passed = sum(clients.map(lambda _: through("crowd", 750), range(8)))
    # If several threads take blocks at once, requests of a block may be lost, but no request is let through twice.
    assert 4900 <= passed <= 5000


def test_threads_that_take_blocks_at_once_keep_the_requests_of_one() -> None:
    """Each further block prolongs the time for the requests that are left, and adds none to their number."""
    blocks, limit = rates._Blocks(), rates._limit("5000/hour")
    for _ in range(3):
        blocks.add(limit, "crowd", 4)
    assert [blocks.next_size(limit, "crowd") for _ in range(4)] == [0, 0, 0, 5]
