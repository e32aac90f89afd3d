"""PostgreSQL is killed, ends sessions, or refuses statements: clients wait only a short time, and errors say why.

The tests share one installation and run in the order of this file.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from occsite.addresses import database_config
from occsite.launch.embedded import database_url
from storage.models import refusals
from tests.faults.journal import Action, Outcome
from tests.faults.load import answers, load
from tests.support.installation import PATIENCE, Installation, bytes_of
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 65536
BACK_WITHIN = 2.0  # Seconds after the return of PostgreSQL within which requests must succeed again.


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(INGEST_WORKERS="2", CHUNK_SIZE=str(CHUNK_SIZE))


def session(installation: Installation) -> psycopg.Connection[Any]:
    config = database_config(database_url(installation.system.storage_dir))
    return psycopg.connect(
        host=config["HOST"],
        port=config["PORT"],
        user=config["USER"],
        password=config["PASSWORD"],
        dbname=config["NAME"],
        autocommit=True,
    )


def answers_again(installation: Installation) -> float:
    """Wait until PostgreSQL itself answers. Return the time of the monotonic clock at which PostgreSQL answered."""

    def is_back() -> bool:
        try:
            with session(installation) as again:
                again.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    wait_until(is_back, PATIENCE)
    return time.monotonic()


def succeed_within(installation: Installation, back_at: float, label: str) -> float:
    """Upload and download until both succeed five times in a row: one success shows only that one process recovered.

    Returns the seconds from ``back_at`` to the first of the five successes in a row.
    """
    tries, in_a_row = 0, 0
    while in_a_row < 5:
        tries += 1
        attempt = installation.journal.upload(bytes_of(f"{label} {tries}", 2 * CHUNK_SIZE), label)
        read = installation.journal.download(attempt.file_hash) if attempt.status == 201 else attempt
        in_a_row = in_a_row + 1 if read.outcome is Outcome.ACKNOWLEDGED else 0
        if in_a_row == 1:
            first = time.monotonic() - back_at
        assert in_a_row or time.monotonic() - back_at < PATIENCE
    return first


def test_a_killed_postmaster_is_back_at_once(installation: Installation, chance: random.Random) -> None:
    took = []
    with load(installation, "while the postmaster is killed", chance, chunk_size=CHUNK_SIZE, pause=0.1) as attempts:
        for number in range(4):
            time.sleep(chance.uniform(2, 4))
            installation.system.kill("postgres")
            back_at = answers_again(installation)
            took.append(succeed_within(installation, back_at, f"after kill {number}"))
    print(f"postmaster killed: {answers(attempts)}; first success {[f'{seconds:.2f}' for seconds in took]} s after it")
    assert max(took) < BACK_WITHIN
    installation.settle("the postmaster killed under load, four times", since=back_at)


def test_sessions_that_are_all_cut_cost_one_request_each(installation: Installation, chance: random.Random) -> None:
    with load(installation, "while sessions are cut", chance, chunk_size=CHUNK_SIZE, pause=0.1) as attempts:
        for _ in range(4):
            time.sleep(1)
            with session(installation) as own:
                own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            assert succeed_within(installation, time.monotonic(), "after the cut") < BACK_WITHIN
    cut_at = time.monotonic()
    print(f"sessions cut: {answers(attempts)}")
    assert 500 not in {attempt.status for attempt in attempts}
    installation.settle("all of PostgreSQL's sessions cut under load", since=cut_at)


@contextmanager
def read_only(installation: Installation) -> Iterator[None]:
    with session(installation) as own:
        own.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        own.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            own.execute("SET default_transaction_read_only = off")
            own.execute("ALTER SYSTEM RESET default_transaction_read_only")
            own.execute("SELECT pg_reload_conf()")


def test_a_read_only_postgresql_is_said_so_and_reads_go_on(installation: Installation, chance: random.Random) -> None:
    journal, system = installation.journal, installation.system
    standing = journal.upload(bytes_of("stands while read-only", 20 * CHUNK_SIZE), "stands while read-only")
    with load(installation, "while read-only", chance, chunk_size=CHUNK_SIZE, pause=0.2) as attempts:
        with read_only(installation):
            wait_until(lambda: health(installation)[0] == 503, PATIENCE)
            document = health(installation)[1]
            assert document["failing"] == {"postgresql": refusals.READ_ONLY}
            refused = [journal.upload(bytes_of(f"refused {i}", 1000), "refused") for i in range(20)]
            assert journal.download(standing.file_hash).outcome is Outcome.ACKNOWLEDGED
            before = {name: pid for name, pid in system.pids().items() if name != "boot"}
        back_at = time.monotonic()
        took = succeed_within(installation, back_at, "after read-only")
    print(f"read-only: {answers(attempts)}, refused {answers(refused)}; first success after {took:.2f} s")
    assert {attempt.status for attempt in refused} == {503}
    assert 500 not in {attempt.status for attempt in attempts if attempt.action is Action.UPLOAD}
    assert {name: pid for name, pid in system.pids().items() if name != "boot"} == before
    installation.settle("PostgreSQL is read-only under load", since=back_at)


def health(installation: Installation) -> tuple[int, dict[str, Any]]:
    status, document = installation.journal.ask("/health")
    return status, document


def test_a_postgresql_that_stands_still_holds_nobody_for_ever(installation: Installation) -> None:
    pid = installation.system.pids()["postgres"]
    children = installation.system.children("postgres")
    for process in (pid, *children):
        os.kill(process, signal.SIGSTOP)
    try:
        began = time.monotonic()
        status, document = health(installation)
        assert status == 503, document
        assert time.monotonic() - began < 20
    finally:
        for process in (*children, pid):
            os.kill(process, signal.SIGCONT)
    took = succeed_within(installation, time.monotonic(), "after it stood still")
    print(f"stood still: first success after {took:.2f} s")
    installation.settle("PostgreSQL stands still for some seconds")
