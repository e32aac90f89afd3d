"""Connections to PostgreSQL that do not wait for ever."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout

T = TypeVar("T")

# Seconds that a statement may take. Who answers clients has less: gunicorn's configuration sets it.
PATIENCE = int(os.environ.get("DATABASE_PATIENCE", "60"))
GRACE = 2.0  # for PostgreSQL to say itself that a statement took too long


class ImpatientConnection(psycopg.Connection[Any]):
    """Gives up on a server that is there but does not answer, of which no setting of libpq would tell."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """What every statement waits in."""
        try:
            return super().wait(gen, interval, PATIENCE + GRACE if timeout is None else timeout)
        except _WaitTimeout:
            if timeout is not None:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError("PostgreSQL does not answer") from None
