"""The pool of connections, with a real PostgreSQL that ends sessions, and with a server that refuses for a while."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from threading import Thread

import psycopg
import pytest
from django import db

from occsite.postgresql import pool as module
from occsite.postgresql.connection import ImpatientConnection
from occsite.postgresql.pool import Pool
from tests.support.system import wait_until

pytestmark = pytest.mark.django_db

SIZE = 4


class Server:
    """Makes connections, or refuses to make them while ``refuses`` is True."""

    def __init__(self) -> None:
        self.refuses = False
        self.asked = 0

    def connect(self) -> ImpatientConnection:
        self.asked += 1
        if self.refuses:
            raise psycopg.OperationalError("the database system is starting up")
        return ImpatientConnection.connect(**db.connection.get_connection_params(), autocommit=True)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def pool(server: Server) -> Iterator[Pool]:
    made = Pool(server.connect, SIZE)
    yield made
    made.close()


def test_a_connection_is_lent_again(pool: Pool, server: Server) -> None:
    for _ in range(3):
        connection = pool.getconn()
        connection.execute("SELECT 1")
        pool.putconn(connection)
    assert server.asked == 1


def test_sessions_that_are_all_cut_cost_nobody_an_error(pool: Pool) -> None:
    lent = [pool.getconn() for _ in range(SIZE)]
    pids = [connection.info.backend_pid for connection in lent]
    for connection in lent:
        pool.putconn(connection)
    with db.connection.cursor() as cursor:
        cursor.execute("SELECT count(pg_terminate_backend(pid)) FROM unnest(%s::int[]) AS pid", [pids])
    began = time.monotonic()
    for _ in range(SIZE):
        connection = pool.getconn()
        connection.execute("SELECT 1")
        pool.putconn(connection)
    assert time.monotonic() - began < 1


def test_a_restart_is_waited_for_and_an_outage_is_not(
    pool: Pool, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.refuses = True
    borrowed: list[ImpatientConnection] = []
    client = Thread(target=lambda: borrowed.append(pool.getconn()))
    client.start()
    wait_until(lambda: server.asked > 1, 5)
    server.refuses = False
    client.join(5)
    pool.putconn(borrowed[0])
    pool.close()

    server.refuses = True
    monkeypatch.setattr(module, "OUTAGE_SECONDS", 0.1)
    with pytest.raises(psycopg.OperationalError, match="starting up"):
        pool.getconn()
    before = server.asked
    with pytest.raises(psycopg.OperationalError):
        pool.getconn()
    assert server.asked == before + 1, "a long outage is found out by one try"
    server.refuses = False
    pool.putconn(pool.getconn())


def test_no_more_are_lent_than_there_are(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_SECONDS", 0.1)
    lent = [pool.getconn() for _ in range(SIZE)]
    with pytest.raises(psycopg.OperationalError, match="4 connections"):
        pool.getconn()
    for connection in lent:
        pool.putconn(connection)
    pool.putconn(pool.getconn())


def test_an_open_transaction_is_rolled_back_and_a_broken_connection_dropped(pool: Pool, server: Server) -> None:
    connection = pool.getconn()
    connection.execute("BEGIN")
    pool.putconn(connection)
    connection = pool.getconn()
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    connection.close()
    pool.putconn(connection)
    pool.putconn(pool.getconn())
    assert server.asked == 2


def test_what_is_not_needed_any_more_is_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    lent = [pool.getconn() for _ in range(SIZE)]
    for connection in lent:
        pool.putconn(connection)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.0)
    pool.putconn(pool.getconn())
    assert [connection.closed for connection in lent[:-1]] == [True] * (SIZE - 1)


def test_a_fork_leaves_the_parents_connections_alone(pool: Pool) -> None:
    connection = pool.getconn()
    pool.putconn(connection)
    child = os.fork()
    if not child:
        pool.open()
        mine = pool.getconn()
        os._exit(int(mine is connection))
    assert os.waitpid(child, 0)[1] == 0
    assert pool.getconn() is connection
    assert connection.execute("SELECT 1").fetchone() == (1,)
    pool.putconn(connection)
