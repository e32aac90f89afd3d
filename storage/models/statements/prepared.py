"""Statements past the ORM, for what is done many times a second.

The ORM's cursors put arguments into the text, so that PostgreSQL plans each statement anew; these it plans once in each
connection. They take part in Django's transactions.

One that has ``set_config('synchronous_commit', 'off', true) AS lazily`` in its FROM clause does not wait for the disk
when it commits. That is for what is done again after a crash of PostgreSQL: its log is written in order, so that
whatever relies on this, and commits as usual, makes it durable too. Others see it at once, as any commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from django.db import DEFAULT_DB_ALIAS, connection, connections, models

M = TypeVar("M", bound=models.Model)


def rows(statement: str, parameters: Mapping[str, Any] | Sequence[Any]) -> list[tuple[Any, ...]]:
    """Execute a statement; its rows, none if it returns nothing.

    In a transaction, or where the thread has a connection already, it is sent there; otherwise one of the pool is
    borrowed for it alone, without what Django does whenever it opens a connection. Arguments whose types PostgreSQL
    cannot tell need casts, lists above all.
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


class Columns:
    """All columns of a model, for statements that return whole rows of several tables."""

    def __init__(self, model: type[models.Model]) -> None:
        self._fields: list[Any] = list(model._meta.concrete_fields)
        self._names = [field.attname for field in self._fields]
        self._converters = [(place, c) for place, field in enumerate(self._fields) if (c := _converter(field))]

    def __len__(self) -> int:
        return len(self._fields)

    def of(self, alias: str, **instead: str) -> str:
        """The columns, for a SELECT; instead of some of them other expressions."""
        return ", ".join(instead.get(field.column, f"{alias}.{field.column}") for field in self._fields)

    def take(self, model: type[M], row: Iterator[Any]) -> M | None:
        """Take the model's values off a row; None if an outer join has found nothing."""
        values = [next(row) for _ in self._fields]
        if values[0] is None:
            return None
        for place, convert in self._converters:
            values[place] = convert(values[place])
        return model.from_db(DEFAULT_DB_ALIAS, self._names, values)


def _converter(field: Any) -> Callable[[Any], Any] | None:
    # JSON comes parsed, unlike the ORM's.
    if isinstance(field, models.JSONField) or not hasattr(field, "from_db_value"):
        return None
    return lambda value: field.from_db_value(value, None, connection)
