"""Metrics under faults: when a process of the API is killed, no counts are lost, and while a database is away, only its
own figures are missing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

import pytest

from occsite.launch.programs import manager_proxy
from occsite.launch.runtime import scratch_dir
from tests.support.metrics import Scrape
from tests.support.system import System, wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

KILLS = 50
ROUTE = {"route": "/version", "method": "GET"}
PATIENCE = 60.0  # Seconds within which a killed process must be replaced, even on a busy machine.
SCRAPE_LIMIT = 10.0  # Prometheus waits this many seconds by default.


@pytest.fixture(scope="module")
def watched(make_system: Callable[..., System]) -> System:
    system = make_system()
    system.start()
    return system


def get(system: System, path: str) -> str:
    with build_opener(ProxyHandler({})).open(f"{system.base_url}{path}", timeout=2 * SCRAPE_LIMIT) as response:
        return str(response.read().decode())


def scrape(system: System) -> Scrape:
    return Scrape.of(get(system, "/metrics"))


def starts(system: System) -> float | None:
    """Return how many processes of the API have been started; None while no process answers."""
    try:
        return scrape(system)("occ_api_process_starts_total")
    except (OSError, HTTPException):
        return None


def counts(found: Scrape) -> dict[object, float]:
    """Return the samples that may only grow: those of counters and histograms."""
    return {key: value for key, value in found.samples.items() if key[0].endswith(("_total", "_bucket", "_count"))}


def test_fifty_kills_of_processes_make_no_files_and_no_count_goes_backwards(watched: System) -> None:
    wait_until(lambda: starts(watched) == 2, PATIENCE)  # The system is ready as soon as one process answers.
    folder = scratch_dir(watched.storage_dir) / "metrics"
    files = sorted(folder.iterdir())
    before = scrape(watched)
    for kills in range(2, KILLS + 1, 2):
        get(watched, "/version")
        for victim in watched.children("api"):
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda kills=kills: starts(watched) == 2 + kills, PATIENCE)  # type: ignore[misc]
        found = scrape(watched)
        smaller = {key for key, value in counts(before).items() if counts(found).get(key, 0.0) < value}
        assert not smaller, f"after {kills} kills"
        before = found
    assert sorted(folder.iterdir()) == files
    assert scrape(watched)("occ_http_requests_total", status="2xx", **ROUTE) == KILLS / 2


def test_a_database_that_is_away_costs_only_its_own_figures(watched: System) -> None:
    manager = manager_proxy(watched.storage_dir).supervisor
    for program, part, left in (("valkey", "redis", "postgresql"), ("postgres", "postgresql", "redis")):
        wait_until(lambda: scrape(watched)("occ_health_up") == 1, PATIENCE)
        manager.stopProcess(f"databases:{program}")
        try:
            wait_until(lambda part=part: scrape(watched)(f"occ_{part}_up") == 0, PATIENCE)  # type: ignore[misc]
            begun = time.monotonic()
            found = scrape(watched)
            assert time.monotonic() - begun < SCRAPE_LIMIT
            assert found(f"occ_{left}_up") == 1
            assert found("occ_http_requests_total", status="2xx", **ROUTE) is not None
            assert get(watched, "/livez")
        finally:
            manager.startProcess(f"databases:{program}")
        wait_until(lambda part=part: scrape(watched)(f"occ_{part}_up") == 1, PATIENCE)  # type: ignore[misc]


@pytest.mark.parametrize("program", ["postgres", "valkey"])
def test_a_database_that_hangs_is_not_waited_for(watched: System, program: str) -> None:
    part = "redis" if program == "valkey" else "postgresql"
    wait_until(lambda: scrape(watched)(f"occ_{part}_up") == 1, PATIENCE)
    held = watched.family(program)
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            begun = time.monotonic()
            get(watched, "/metrics")
            assert time.monotonic() - begun < SCRAPE_LIMIT
        wait_until(lambda: scrape(watched)(f"occ_{part}_up") == 0, PATIENCE)
    finally:
        for pid in held:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: scrape(watched)(f"occ_{part}_up") == 1, PATIENCE)
