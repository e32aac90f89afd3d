"""Redis is emptied, killed, stopped and hangs, and PostgreSQL restarts, all under load: nothing is lost.

The tests share one installation and run in the order of this file.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import redis

from occsite.launch.embedded import redis_url
from occsite.launch.programs import manager_proxy
from tests.faults.gates import stopped
from tests.faults.journal import Outcome
from tests.faults.load import answers, load
from tests.faults.wrecks import MIB, Wreck, accept
from tests.support.installation import PATIENCE, Installation, bytes_of
from tests.support.system import alive, wait_until

pytestmark = pytest.mark.system

CHUNK_SIZE = 65536
AWAY = 60.0  # Seconds for which Redis is stopped.
HANGING = 20.0  # Seconds for which Redis does not answer.
RETURN_LIMIT = 20.0  # Seconds after the return of a database within which the service must be ready again.


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(INGEST_WORKERS="2", CHUNK_SIZE=str(CHUNK_SIZE))


def test_emptying_redis_under_load_is_seen_by_nobody(installation: Installation, chance: random.Random) -> None:
    with (
        redis.Redis.from_url(redis_url(installation.system.storage_dir)) as client,
        load(installation, "while Redis is emptied", chance, chunk_size=CHUNK_SIZE, clients=8) as attempts,
    ):
        for _ in range(10):
            time.sleep(chance.uniform(0.1, 1.0))
            client.flushall()
    assert {attempt.outcome for attempt in attempts} == {Outcome.ACKNOWLEDGED}, answers(attempts)
    installation.settle("Redis emptied again and again under load")


@pytest.mark.faults
def test_a_wake_up_that_is_lost_costs_a_sweep(installation: Installation) -> None:
    installation.system.kill("worker")  # No worker may take the message before Redis loses it.
    wreck = Wreck([accept(installation, "its wake-up was lost", bytes_of("unheard", MIB))])
    with redis.Redis.from_url(redis_url(installation.system.storage_dir)) as client:
        client.flushall()
    wreck.await_recovery(installation)
    installation.settle("a wake-up lost with what Redis held", since=wreck.killed_at)


@pytest.mark.faults
def test_redis_may_be_killed_under_load(installation: Installation, chance: random.Random) -> None:
    with load(installation, "while Redis is killed", chance, chunk_size=CHUNK_SIZE, pause=0.2):
        for _ in range(2):
            time.sleep(chance.uniform(1, 3))
            installation.system.kill("valkey")
            killed_at = time.monotonic()
            wait_until(installation.system.is_ready, PATIENCE, installation.system.output)
    installation.settle("Redis killed under load", since=killed_at)


@contextmanager
def redis_away(installation: Installation) -> Iterator[None]:
    """Have the process manager stop Redis during the ``with`` block."""
    manager = manager_proxy(installation.system.storage_dir).supervisor
    manager.stopProcess("databases:valkey")
    try:
        yield
    finally:
        manager.startProcess("databases:valkey")


@pytest.mark.faults
def test_downloads_go_on_while_redis_is_away(installation: Installation, chance: random.Random) -> None:
    journal = installation.journal
    standing = journal.upload(bytes_of("stands while Redis is away", 20 * CHUNK_SIZE), "stands while Redis is away")
    with load(installation, "while Redis is away", chance, chunk_size=CHUNK_SIZE, pause=1.0) as attempts:
        with redis_away(installation):
            ends = time.monotonic() + AWAY
            while time.monotonic() < ends:
                assert journal.download(standing.file_hash).outcome is Outcome.ACKNOWLEDGED
                time.sleep(0.5)
        back_at = time.monotonic()
        wait_until(installation.system.is_ready, RETURN_LIMIT, installation.system.output)
    print(answers(attempts))
    installation.settle("Redis away for 60 s under load", since=back_at)


@pytest.mark.faults
def test_a_redis_that_hangs_holds_up_nobody_for_ever(installation: Installation, chance: random.Random) -> None:
    system = installation.system
    with load(installation, "while Redis hangs", chance, chunk_size=CHUNK_SIZE, pause=1.0) as attempts:
        with stopped(system.pids()["valkey"]):
            time.sleep(HANGING)
        back_at = time.monotonic()
        wait_until(system.is_ready, RETURN_LIMIT, system.output)
    print(answers(attempts))
    installation.settle("Redis hangs for 20 s under load", since=back_at)


def gone(pid: int) -> bool:
    return not alive([pid])


@pytest.mark.faults
def test_postgresql_may_be_shut_down_immediately_under_load(installation: Installation, chance: random.Random) -> None:
    """SIGQUIT ends PostgreSQL's sessions at once, and its next start recovers from the log."""
    system = installation.system
    with load(installation, "while PostgreSQL restarts", chance, chunk_size=CHUNK_SIZE, pause=0.2) as attempts:
        for _ in range(3):
            # The manager waits longer before each restart of a server that ends within 10 s of its start.
            time.sleep(chance.uniform(11, 14))
            shut_down_at = time.monotonic()
            server = system.kill("postgres", signal.SIGQUIT)
            wait_until(partial(gone, server), PATIENCE, system.output)
            wait_until(system.is_ready, PATIENCE, system.output)
    print(answers(attempts))
    installation.settle("PostgreSQL shut down immediately under load", since=shut_down_at)
