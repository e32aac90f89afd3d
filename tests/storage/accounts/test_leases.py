"""MAX_TRANSFERS_PER_OWNER: the limit is exact among all processes, and a process that dies gives its places back."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import redis

from storage.accounts import leases
from storage.accounts.leases import KEY, Lease, begin, end
from storage.api.wsgi.transfers import transfer
from storage.exceptions import TooManyOwnTransfers
from storage.models import Scope
from storage.redis_connection import connect
from tests.support.api import WholeClient as Client
from tests.support.api import assert_nothing_left, assert_problem, workers
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.keys import bearer, keys_on, owner
from tests.support.system import PROJECT

__all__ = ["keys_on", "workers"]


@pytest.fixture(autouse=True)
def another_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let this process have no leases, like a new process. A call of the yielded function imitates one more process."""
    processes = []

    def start() -> None:
        processes.append(leases._Leases())
        monkeypatch.setattr(leases, "_leases", processes[-1])

    start()
    yield start
    for process in processes:
        process._leases.clear()
        process._kept.clear()


@pytest.fixture
def limited(cluster: ClusterUnderTest, settings: Any) -> ClusterUnderTest:
    """A cluster that lets every owner have two transfers at once."""
    settings.OCC = dataclasses.replace(settings.OCC, max_transfers_per_owner=2)
    return cluster


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of two seconds, which are renewed often."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2)
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.1)


def taken(name: str, most: int) -> Lease | None:
    try:
        return begin(name, most)
    except TooManyOwnTransfers:
        return None


def within(seconds: float, condition: Callable[[], Any]) -> Any:
    """Wait until the condition holds, and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.02)
    return value


# -- leases ------------------------------------------------------------------


def test_of_40_at_once_exactly_as_many_get_through_as_may(redis_client: redis.Redis) -> None:
    with ThreadPoolExecutor(40) as clients:
        found = [lease for lease in clients.map(lambda _: taken("ann", 7), range(40)) if lease]
    assert len(found) == 7
    assert taken("bob", 1)
    end(found[0])
    assert taken("ann", 7)
    assert not taken("ann", 7)


def test_a_lease_lasts_as_long_as_its_transfer(redis_client: redis.Redis, hasty: None) -> None:
    lease = taken("ann", 1)
    assert lease
    until = time.monotonic() + 2.5  # A lease that is not renewed ends before this time.
    while time.monotonic() < until:
        assert not taken("ann", 1)
        time.sleep(0.05)
    end(lease)
    assert taken("ann", 1)


def test_processes_count_together_and_one_that_is_killed_gives_its_places_back(redis_client: redis.Redis) -> None:
    code = (
        "import django; django.setup()\n"
        "from storage.accounts import leases\n"
        "leases.LEASE_SECONDS, leases.RENEW_SECONDS = 2, 0.1\n"
        "from storage.accounts.leases import begin\n"
        "held = [begin('ann', 3) for _ in range(2)]\n"
        "print('taken', flush=True); input()\n"
    )
    # The two processes have the same Redis, because the child inherits the environment.
    process = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'occsite.settings'\n{code}"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        mine = taken("ann", 3)
        assert mine
        assert not taken("ann", 3)
        process.kill()
        process.wait()
    killed_at = time.monotonic()
    within(3.0, lambda: taken("ann", 3))
    within(1.0, lambda: taken("ann", 3))
    assert not taken("ann", 3), "this process lives"
    assert time.monotonic() - killed_at < 3.0


def test_a_lease_survives_the_loss_of_redis_data(redis_client: redis.Redis, hasty: None) -> None:
    lease = taken("ann", 1)
    redis_client.flushdb()
    within(2.0, lambda: redis_client.zcard(KEY + "ann") == 1)
    assert lease and not taken("ann", 1)


def test_a_renewal_that_comes_after_the_end_brings_no_lease_back(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = taken("ann", 1)
    assert lease
    script = leases._script

    def late(source: str) -> Any:
        end(lease)  # The transfer ends after the leases were listed, and before they are renewed.
        return script(source)

    monkeypatch.setattr(leases, "_script", late)
    leases._leases._renew({lease})
    assert not redis_client.exists(KEY + "ann")


def test_a_renewal_does_not_give_back_a_lease_that_the_next_transfer_uses(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = taken("ann", 4)
    assert lease
    script = leases._script

    def late(source: str) -> Any:
        end(lease)  # The transfer ends after the leases were listed, and another transfer begins with its lease.
        assert leases._leases.reuse(lease.key) is lease
        return script(source)

    monkeypatch.setattr(leases, "_script", late)
    leases._leases._renew({lease})
    assert redis_client.zcard(KEY + "ann") == 1


def test_leases_from_before_the_clock_was_set_back_do_not_count(redis_client: redis.Redis) -> None:
    seconds = int(redis_client.time()[0])
    redis_client.zadd(KEY + "ann", {"old": seconds + 3600, "ended": seconds - 1})
    assert taken("ann", 1)
    assert not taken("ann", 1)


def test_without_redis_every_transfer_is_let_through(
    redis_client: redis.Redis, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> Any:
        raise redis.ConnectionError("away")

    with monkeypatch.context() as patched:
        patched.setattr(type(connect().connection_pool), "get_connection", away)
        held = [taken("ann", 1) for _ in range(3)]
        assert all(held)
        assert held[0]
        end(held[0])
    within(3.0, lambda: redis_client.zcard(KEY + "ann") == 2)
    assert not taken("ann", 1), "what began without Redis counts when Redis is back"


def test_a_lease_is_kept_for_the_next_transfer_and_soon_given_back(redis_client: redis.Redis) -> None:
    first = taken("ann", 4)
    assert first
    end(first)
    assert taken("ann", 4) is first
    assert redis_client.zcard(KEY + "ann") == 1
    assert taken("bob", 4) is not first, "a lease is its owner's"
    end(first)
    within(2.0, lambda: redis_client.zcard(KEY + "ann") == 0)


def test_near_the_limit_a_lease_is_given_back_at_once(redis_client: redis.Redis) -> None:
    held = [taken("ann", 4) for _ in range(3)]
    assert held[2]
    end(held[2])
    assert redis_client.zcard(KEY + "ann") == 2


def test_what_redis_said_of_the_others_is_believed_for_a_moment_only(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = taken("ann", 4)
    assert lease
    monkeypatch.setattr(lease, "_taken_at", time.monotonic() - leases.GOOD_SECONDS)
    end(lease)
    assert redis_client.zcard(KEY + "ann") == 0


def test_leases_that_another_process_keeps_take_no_place(
    redis_client: redis.Redis, another_process: Callable[[], None]
) -> None:
    first = [taken("ann", 4) for _ in range(2)]
    for lease in first:
        assert lease
        end(lease)
    another_process()
    assert all(taken("ann", 4) for _ in range(4))
    assert not taken("ann", 4)


def test_where_all_places_are_taken_a_refusal_does_not_wait(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        redis_client.zadd(KEY + "ann", {f"long {number}": redis_client.time()[0] + leases.LEASE_SECONDS - 5})
    monkeypatch.setattr(leases, "KEEP_SECONDS", 60)
    began = time.monotonic()
    assert not taken("ann", 3)
    assert time.monotonic() - began < 30


# -- requests ----------------------------------------------------------------


@pytest.fixture
def busy(limited: ClusterUnderTest) -> Iterator[Callable[[str], Event]]:
    """Begin a transfer of an owner in a thread of its own. The event that is returned ends the transfer."""
    ends: list[Event] = []
    with ThreadPoolExecutor(8) as pool:

        def busy(owner_id: str) -> Event:
            begun, ended = Event(), Event()

            def hold() -> None:
                lease = begin(owner_id, 2)
                begun.set()
                ended.wait(timeout=30)
                end(lease)

            ends.append(ended)
            pool.submit(hold)
            assert begun.wait(timeout=10)
            return ended

        yield busy
        for ended in ends:
            ended.set()


def test_one_transfer_too_many_is_refused_and_leaves_nothing(
    limited: ClusterUnderTest, busy: Callable[[str], Event]
) -> None:
    first, _ = busy("nobody"), busy("nobody")
    for method, path in (("PUT", "/upload/a"), ("POST", "/upload")):
        refused = Client().generic(method, path, b"bytes", content_type="text/plain")
        assert assert_problem(refused, 429)["code"] == "too_many_own_transfers"
        assert refused.headers["Retry-After"] == "5"
    assert_nothing_left(limited)
    assert Client().get("/files").status_code == 200, "this is no transfer"
    first.set()
    within(5.0, lambda: Client().put("/upload/a", b"bytes", headers={"Prefer": "respond-async"}).status_code == 202)


def test_each_owner_has_transfers_of_their_own(
    workers: ClusterUnderTest, limited: ClusterUnderTest, keys_on: ClusterUnderTest, busy: Callable[[str], Event]
) -> None:
    ann, other, bob = bearer("ann"), bearer("ann", [Scope.READ]), bearer("bob")
    file_hash = Client().put("/upload/a", content_of(3), headers=ann).json()["file_hash"]
    for _ in range(2):
        busy(str(owner("ann").pk))
    for headers in (ann, other):
        assert_problem(Client().get(f"/download/{file_hash}", headers=headers), 429)
        assert Client().head(f"/download/{file_hash}", headers=headers).status_code == 200
    assert Client().put("/upload/a", b"bytes", headers=bob).status_code == 201


def test_a_download_has_its_lease_until_it_ends(
    workers: ClusterUnderTest, limited: ClusterUnderTest, redis_client: redis.Redis
) -> None:
    file_hash = Client().put("/upload/a", content_of(3)).json()["file_hash"]
    within(5.0, lambda: redis_client.zcard(f"{KEY}nobody") == 0)
    responses = [Client().get(f"/download/{file_hash}") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    responses[0].getvalue()
    responses[1].close()
    within(5.0, lambda: redis_client.zcard(f"{KEY}nobody") == 0)
    assert Client().get(f"/download/{file_hash}").getvalue() == content_of(3)


def test_without_a_limit_redis_is_not_asked(workers: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "begin", lambda *_: pytest.fail("asked"))
    with transfer():
        assert Client().put("/upload/a", b"bytes").status_code == 201
