"""Uploads in many requests: clients whose connections break at any byte, and an API that is killed while bytes arrive.

An offset that a client was told is never taken back, the file has every byte, and no request hangs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from tests.support.installation import bytes_of
from tests.support.resuming import PATIENCE, Client
from tests.support.system import System, make_system, wait_until

__all__ = ["make_system"]

pytestmark = [pytest.mark.system, pytest.mark.faults]

MIB = 1 << 20
SIZE = 48 * MIB + 4321  # The upload has segments, which are stored while the rest of it still arrives.
INTERRUPTIONS = 50
KILLS = 20
STALL_TIMEOUT = "60"
PROMPT = 30.0  # Seconds for a prompt answer: no client waits until the request of an earlier client times out.


@pytest.fixture(scope="module")
def system(make_system: Callable[..., System]) -> System:
    found = make_system(INGEST_WORKERS="1", STALL_TIMEOUT=STALL_TIMEOUT)
    found.start()
    return found


def client_of(system: System, data: bytes) -> Client:
    return Client(system.port, system.storage_dir / "staging", data)


def test_a_line_that_breaks_fifty_times_loses_nothing(system: System, chance: random.Random) -> None:
    client = client_of(system, bytes_of("fifty interruptions", SIZE))
    hanging = client.suffer(INTERRUPTIONS, chance)
    client.check_the_file()
    for connection in hanging:
        connection.close()
    print(f"{INTERRUPTIONS} interruptions, the slowest answer after {client.slowest:.2f} s")
    assert client.slowest < PROMPT


def test_an_api_that_is_killed_twenty_times_loses_nothing(system: System, chance: random.Random) -> None:
    client = client_of(system, bytes_of("twenty kills", SIZE))
    for _ in range(KILLS):
        client.send(chance.randrange(1, SIZE // KILLS // 2))
        connection = client.begin_to_send(chance.randrange(1, SIZE // KILLS // 2))
        time.sleep(chance.uniform(0, 0.05))
        before = system.kill("api")
        connection.close()
        wait_until(lambda before=before: system.pids().get("api", before) != before, PATIENCE)  # type: ignore[misc]
    client.check_the_file()
    print(f"{KILLS} kills, the slowest answer after {client.slowest:.2f} s")
