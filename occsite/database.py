"""Connections to PostgreSQL that do not wait for ever."""

from __future__ import annotations

import os
import select
import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout

T = TypeVar("T")

# Seconds that a statement may take. Who answers clients has less: gunicorn's configuration sets it.
PATIENCE = int(os.environ.get("DATABASE_PATIENCE", "60"))
GRACE = 2.0  # for PostgreSQL to say itself that a statement took too long
FRESH = 1.0  # seconds in which a connection that worked is not asked again whether it still does


class ImpatientConnection(psycopg.Connection[Any]):
    """Gives up on a server that is there but does not answer, of which no setting of libpq would tell."""

    _worked_at = float("-inf")

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """What every statement waits in."""
        try:
            result = super().wait(gen, interval, PATIENCE + GRACE if timeout is None else timeout)
        except _WaitTimeout:
            if timeout is not None:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError("PostgreSQL does not answer") from None
        self._worked_at = time.monotonic()
        return result

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> psycopg.Cursor[Any]:
        """An empty statement is the pool's question, before every loan, whether the connection is good.

        One that worked just now is good, unless the server has sent what nobody asked for: its farewell.
        """
        if query == "" and time.monotonic() - self._worked_at < FRESH and not self._has_something_to_read():
            return self.cursor()
        return super().execute(query, *args, **kwargs)

    def _has_something_to_read(self) -> bool:
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))
