"""How a connection to PostgreSQL checks whether it still works."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from django import db

from occsite.postgresql import connection as module
from occsite.postgresql.connection import ImpatientConnection
from tests.support.system import wait_until

pytestmark = pytest.mark.django_db


@pytest.fixture
def conn() -> Iterator[ImpatientConnection]:
    with ImpatientConnection.connect(**db.connection.get_connection_params(), autocommit=True) as connection:
        yield connection


def test_a_connection_that_worked_just_now_is_not_asked(
    conn: ImpatientConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("SELECT 1")
    asked = []
    monkeypatch.setattr(psycopg.Connection, "execute", lambda *_: asked.append(True))
    monkeypatch.setattr(module, "FRESH", 1000.0)
    assert conn.is_sound()
    assert not asked
    monkeypatch.setattr(module, "FRESH", 0.0)
    assert conn.is_sound()
    assert asked


def test_a_connection_that_the_server_has_closed_is_found_out_at_once(
    conn: ImpatientConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("SELECT 1")
    monkeypatch.setattr(module, "FRESH", 1000.0)
    with db.connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
    wait_until(lambda: not conn.is_sound(), 10)
