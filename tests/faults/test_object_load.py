"""Clients of S3 overwrite, copy, delete, read and list a few objects while processes and databases die under them.

No acknowledged write is lost, no deleted object comes back, a GET answers with one whole version, and listings are
complete. The tests share one installation and run in the order of this file.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest
import redis

from occsite.launch.embedded import redis_url
from tests.faults.object_load import answers, object_load, throughout
from tests.support.installation import PATIENCE, Installation
from tests.support.system import alive, free_port, wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

KILLS = 20
# The only statuses that answers may have. A well-formed request is never refused, except with 404: if a GET or a copy
# finds no object, or if the parts of an aborted upload are listed.
GOOD = {"200", "204", "404", "503", "None"}


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    made = make_installation(INGEST_WORKERS="4", CHUNK_SIZE="65536", RECLAIM_GRACE="5", S3_PORT=str(free_port()))
    made.objects.create_bucket()
    return made


@contextmanager
def loaded(installation: Installation, scenario: str, chance: random.Random) -> Iterator[None]:
    """Run a fault under load as the ``with`` block; afterwards nothing may be lost, wrong or left over."""
    with object_load(installation, scenario, chance) as made:
        yield
        over = time.monotonic()
        wait_until(installation.system.is_ready, PATIENCE, installation.system.output)
    said = answers(made)
    print(said)
    installation.objects.abort_all()
    # The sweeper would drop the bodies of killed requests after some minutes.
    installation.run("drop_pending", module="objects_at_work")
    installation.settle(scenario, since=over)
    assert {answer.rpartition(" ")[2] for answer in said} <= GOOD, said
    counts = json.loads(installation.run("print_state", module="objects_at_work"))["counts"]
    assert counts == {"pending": 0, "parts": 0, "unreferenced": 0}


def kill_one(installation: Installation, program: str, chance: random.Random) -> None:
    """Kill one of the processes that a program has forked."""

    def is_killed() -> bool:
        children = installation.system.children(program)
        with suppress(ProcessLookupError):
            if children:
                os.kill(chance.choice(children), signal.SIGKILL)
                return True
        return False

    wait_until(is_killed, PATIENCE)


def test_ingest_workers_may_die(installation: Installation, chance: random.Random) -> None:
    with loaded(installation, "ingest workers killed under load of S3", chance):
        # An upload whose worker was killed waits for the end of the worker's lease, so most clients would only wait if
        # the workers were killed more often.
        throughout(3.0, KILLS, lambda: kill_one(installation, "worker", chance), chance)


def test_api_servers_may_die(installation: Installation, chance: random.Random) -> None:
    with loaded(installation, "API servers killed under load of S3", chance):
        throughout(1.0, KILLS, lambda: kill_one(installation, "api", chance), chance)


def test_redis_may_be_emptied(installation: Installation, chance: random.Random) -> None:
    with (
        redis.Redis.from_url(redis_url(installation.system.storage_dir)) as client,
        loaded(installation, "Redis emptied under load of S3", chance),
    ):
        throughout(1.0, KILLS, client.flushall, chance)


def test_postgresql_may_be_shut_down_immediately(installation: Installation, chance: random.Random) -> None:
    system = installation.system

    def shut_down() -> None:
        server = system.kill("postgres", signal.SIGQUIT)
        wait_until(partial(gone, server), PATIENCE, system.output)
        wait_until(system.is_ready, PATIENCE, system.output)

    with loaded(installation, "PostgreSQL shut down immediately under load of S3", chance):
        # The manager waits longer before each restart of a server that ends within 10 s of its start.
        throughout(12.0, 3, shut_down, chance)


def gone(pid: int) -> bool:
    return not alive([pid])
