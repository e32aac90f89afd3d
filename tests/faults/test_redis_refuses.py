"""Redis refuses to work, for each reason in ``REFUSALS``: uploads are stored, downloads succeed, and no program ends.

The tests share one installation and run in the order of this file.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from occsite.launch.embedded import redis_url
from tests.faults.journal import Action, Outcome
from tests.faults.load import answers, load
from tests.support.installation import PATIENCE, Installation, bytes_of
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 65536
REFUSING = 12.0  # Seconds for which Redis refuses to work.
STORED_WITHIN = 5.0  # Seconds that an upload may take.
WELL_AGAIN = 30.0  # Seconds within which /health must say "healthy" again.


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(INGEST_WORKERS="2", CHUNK_SIZE=str(CHUNK_SIZE))


@contextmanager
def set_to(client: redis.Redis, **values: Any) -> Iterator[None]:
    names = {name.replace("_", "-"): value for name, value in values.items()}
    before = {name: str(client.config_get(name)[name]) for name in names}
    try:
        for name, value in names.items():
            client.config_set(name, value)
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)


@contextmanager
def out_of_memory(client: redis.Redis) -> Iterator[None]:
    with set_to(client, maxmemory=1):
        yield


@contextmanager
def without_its_replicas(client: redis.Redis) -> Iterator[None]:
    with set_to(client, min_replicas_to_write=1):
        yield


@contextmanager
def a_replica(client: redis.Redis) -> Iterator[None]:
    client.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")


@contextmanager
def unable_to_save(client: redis.Redis) -> Iterator[None]:
    """Make Redis answer MISCONF, as on a full disk: a directory stands where Redis would save its file."""
    target = Path(str(client.config_get("dir")["dir"])) / "dump.rdb"
    target.mkdir()
    (target / "in the way").touch()
    with set_to(client, save="3600 1"):
        try:
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", PATIENCE)
            yield
        finally:
            shutil.rmtree(target)
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok", PATIENCE)


@contextmanager
def without_places(client: redis.Redis) -> Iterator[None]:
    with set_to(client, maxclients=1):
        client.client_kill_filter(_type="normal", skipme=True)
        yield


REFUSALS = [out_of_memory, without_its_replicas, a_replica, unable_to_save, without_places]


def running(installation: Installation) -> dict[str, int]:
    """Map the programs that must run all the time to their pids."""
    return {name: pid for name, pid in installation.system.pids().items() if name != "boot"}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.__name__)
def test_uploads_do_without_a_redis_that_refuses(
    installation: Installation, chance: random.Random, refusal: Callable[[redis.Redis], Any]
) -> None:
    system, name = installation.system, refusal.__name__.replace("_", " ")
    before = running(installation)
    with redis.Redis.from_url(redis_url(system.storage_dir), decode_responses=True) as client:
        client.ping()
        with load(installation, name, chance, chunk_size=CHUNK_SIZE, pause=0.2) as attempts:
            with refusal(client):
                ends = time.monotonic() + REFUSING
                wait_until(lambda: system.health()["status"] == "degraded", PATIENCE)
                while time.monotonic() < ends:
                    began = time.monotonic()
                    attempt = installation.journal.upload(bytes_of(f"{name} {began}", 2 * CHUNK_SIZE), name)
                    assert attempt.status == 201
                    assert time.monotonic() - began < STORED_WITHIN
                    health = system.health()
                    assert health["ready"] is True
                    assert any(words.startswith("Redis ") for words in health["degraded"]), health
            over = time.monotonic()
            took = wait_until(lambda: system.health()["status"] == "healthy", WELL_AGAIN, lambda: str(system.health()))
    print(f"{name}: {answers(attempts)}; healthy after {took:.1f} s")
    assert {attempt.outcome for attempt in attempts} == {Outcome.ACKNOWLEDGED}, answers(attempts)
    assert {attempt.status for attempt in attempts if attempt.action is Action.UPLOAD} == {201}
    assert running(installation) == before, "a program has ended"
    installation.settle(f"Redis is {name} under load", since=over)


def test_killing_redis_while_the_cluster_rebalances_ends_nothing(
    installation: Installation, chance: random.Random
) -> None:
    before = running(installation)
    slowest = 0.0
    with load(installation, "while the cluster rebalances", chance, chunk_size=CHUNK_SIZE, pause=0.2) as attempts:
        installation.run("add_node")
        for number in range(4):
            installation.system.kill("valkey")
            for part in range(5):
                began = time.monotonic()
                data = bytes_of(f"rebalancing {number} {part}", 2 * CHUNK_SIZE)
                attempt = installation.journal.upload(data, "while the cluster rebalances")
                slowest = max(slowest, time.monotonic() - began)
                assert attempt.status == 201
            wait_until(lambda: "valkey" in running(installation), PATIENCE)
    over = time.monotonic()
    print(f"{answers(attempts)}; slowest of the others {slowest:.1f} s")
    assert slowest < STORED_WITHIN
    assert {attempt.outcome for attempt in attempts} == {Outcome.ACKNOWLEDGED}, answers(attempts)
    assert running(installation) | {"valkey": 0} == before | {"valkey": 0}, "a program has ended"
    installation.settle("Redis killed four times while the cluster rebalances", since=over)
