"""Batches of chunks that are counted and then written or removed, for which a rebuild of a sketch waits (RACES 24)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from storage.models.statements import prepared

BATCHES_IN_FLIGHT = 0x0CC0_5E7C  # This is the key of the advisory lock; any constant will do.


@contextmanager
def batch_in_flight() -> Iterator[None]:
    """Held by whoever counts and then writes, so that a rebuild can wait for batches that a shadow missed.

    It is a shared advisory lock of this thread's PostgreSQL session. A worker that dies gives it up, and its writes
    have ended then too; one that only loses its session fails at its next commit.
    """
    connection.ensure_connection()  # kept by this thread: what follows goes to the same session
    prepared.rows("SELECT pg_advisory_lock_shared(%s)", [BATCHES_IN_FLIGHT])
    try:
        yield
    finally:
        if connection.connection is not None and not connection.connection.closed:
            prepared.rows("SELECT pg_advisory_unlock_shared(%s)", [BATCHES_IN_FLIGHT])


def wait_for_batches() -> None:
    """Return once every batch that was in flight at the call has ended."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [BATCHES_IN_FLIGHT])
        cursor.execute("SELECT pg_advisory_unlock(%s)", [BATCHES_IN_FLIGHT])
