"""Statements that every request needs, past the ORM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections


def rows(statement: str, parameters: Mapping[str, Any] | Sequence[Any]) -> list[tuple[Any, ...]]:
    """Execute a statement that PostgreSQL plans once in each connection; its rows.

    The ORM's cursors put arguments into the text, which makes PostgreSQL plan it anew each time. In a transaction, or
    where the thread has a connection already, the statement is sent there; otherwise one of the pool is borrowed for
    it alone, without what Django does whenever it opens a connection.
    """
    django: Any = connections[DEFAULT_DB_ALIAS]
    with django.wrap_database_errors:
        pool = django.pool
        if pool is None or django.connection is not None or django.in_atomic_block:
            django.ensure_connection()
            return _execute(django.connection, statement, parameters)
        pool.open()
        borrowed = pool.getconn()
        try:
            return _execute(borrowed, statement, parameters)
        finally:
            pool.putconn(borrowed)


def _execute(
    link: psycopg.Connection[Any], statement: str, parameters: Mapping[str, Any] | Sequence[Any]
) -> list[tuple[Any, ...]]:
    with psycopg.Cursor[Any](link) as cursor:
        cursor.execute(statement, parameters, prepare=True, binary=True)
        return cursor.fetchall() if cursor.pgresult and cursor.pgresult.nfields else []
