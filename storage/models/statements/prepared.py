"""SQL statements that bypass the ORM, for operations that happen many times a second.

The ORM's cursors put the arguments into the text of a statement, so PostgreSQL plans each statement again. PostgreSQL
plans the statements of this module once in each connection. The statements take part in Django's transactions.

A statement with ``set_config('synchronous_commit', 'off', true) AS lazily`` in its FROM clause does not wait for the
disk when it commits. A commit that does not wait for the disk is right for work that is done again after a crash of
PostgreSQL. PostgreSQL writes its log in order: a later commit that relies on the work, and waits for the disk as usual,
makes the work durable too. Other sessions see the changes at once, as after any commit, even if the commit does not
wait for the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from django.db import DEFAULT_DB_ALIAS, connection, connections, models, transaction

M = TypeVar("M", bound=models.Model)


def rows(statement: str, parameters: Mapping[str, Any] | Sequence[Any]) -> list[tuple[Any, ...]]:
    """Execute a statement and return its rows; the list is empty if the statement returns no rows.

    If the thread is in a transaction or has a connection already, the statement runs on that connection. If the thread
    has no connection, the statement borrows one from the pool for itself alone, and saves the work that Django does for
    each connection. Arguments, above all lists, need a cast where PostgreSQL cannot tell their types.
    """
    django: Any = connections[DEFAULT_DB_ALIAS]
    with django.wrap_database_errors:
        if _thread.link is not None:
            return _execute(_thread.link, statement, parameters)
        if _has_connection(django):
            django.ensure_connection()
            return _execute(django.connection, statement, parameters)
        with _borrowed(django.pool) as link:
            return _execute(link, statement, parameters)


@contextmanager
def atomic() -> Iterator[None]:
    """A transaction of all calls of ``rows`` in the body: it is committed after the body, or rolled back by an error.

    If the thread has a connection already, Django's ``atomic`` does this. Otherwise the transaction borrows a
    connection, as a single statement does, and then the ORM takes no part in the transaction.
    """
    assert _thread.link is None, "a borrowed connection has one transaction"
    django: Any = connections[DEFAULT_DB_ALIAS]
    if _has_connection(django):
        with transaction.atomic():
            yield
        return
    with django.wrap_database_errors, _borrowed(django.pool) as link, link.transaction():
        _thread.link = link
        try:
            yield
        finally:
            _thread.link = None


class _Thread(threading.local):
    """The connection that this thread has borrowed for a transaction."""

    link: psycopg.Connection[Any] | None = None


_thread = _Thread()


def _has_connection(django: Any) -> bool:
    """True if statements run on Django's connection: the thread has one, or there is no pool to borrow from."""
    return django.pool is None or django.connection is not None or django.in_atomic_block


@contextmanager
def _borrowed(pool: Any) -> Iterator[psycopg.Connection[Any]]:
    pool.open()
    link = pool.getconn()
    try:
        yield link
    finally:
        pool.putconn(link)


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
        """The columns of table ``alias`` for a SELECT. ``instead``: column → an expression to select for it."""
        return ", ".join(instead.get(field.column, f"{alias}.{field.column}") for field in self._fields)

    def take(self, model: type[M], row: Iterator[Any]) -> M | None:
        """Take the model's values from the front of ``row``; return None if an outer join has found no row."""
        values = [next(row) for _ in self._fields]
        if values[0] is None:
            return None
        for place, convert in self._converters:
            values[place] = convert(values[place])
        return model.from_db(DEFAULT_DB_ALIAS, self._names, values)


def _converter(field: Any) -> Callable[[Any], Any] | None:
    # The cursors of this module return JSON already parsed; the ORM's cursors return text.
    if isinstance(field, models.JSONField) or not hasattr(field, "from_db_value"):
        return None
    return lambda value: field.from_db_value(value, None, connection)
