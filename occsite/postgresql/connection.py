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

# A statement may take this many seconds. gunicorn's configuration sets a smaller number for the API's processes.
PATIENCE = int(os.environ.get("DATABASE_PATIENCE", "60"))
GRACE = 2.0  # PostgreSQL has this many more seconds to report that a statement took too long.
FRESH = 1.0  # A connection that worked this many seconds ago is assumed to work still.


class ImpatientConnection(psycopg.Connection[Any]):
    """Gives up on a server that is there but does not answer: no setting of libpq notices such a server."""

    _worked_at = float("-inf")

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Every statement waits in this method."""
        try:
            result = super().wait(gen, interval, PATIENCE + GRACE if timeout is None else timeout)
        except _WaitTimeout:
            if timeout is not None:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError("PostgreSQL does not answer") from None
        self._worked_at = time.monotonic()
        return result

    def is_sound(self) -> bool:
        """Tell whether the connection works; a connection that worked a moment ago is asked nothing.

        A server that closes a connection sends a last message first. So a connection with unread bytes is not sound.
        """
        if self.closed or self._has_something_to_read():
            return False
        if time.monotonic() - self._worked_at < FRESH:
            return True
        try:
            self.execute("")
        except psycopg.Error:
            return False
        return True

    def _has_something_to_read(self) -> bool:
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))
