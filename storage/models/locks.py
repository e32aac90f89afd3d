"""Advisory locks of PostgreSQL. A session holds such a lock, so PostgreSQL releases it when the process dies.

``Job.request`` locks a kind and a subject by a pair of 32-bit numbers. In PostgreSQL, a pair never locks the same thing
as a single number of this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, unique

from django.db import connection

from storage.models.statements import prepared


@unique
class Lock(IntEnum):
    """The locks and their keys. All processes of an installation must agree on a key, so a key never changes."""

    MIGRATING = 0x0CC5_7043  # One process at a time brings the schema up to date.
    PROVISIONING = 0x0CC0_B007  # One process at a time makes the cluster's row, its nodes and their volumes.
    RECLAIMING = 0x0CC0_F4EE  # One pass of reclaim runs at a time: no other pass may act on the chunks of its plan.
    # One process at a time gives volumes a generation. If two processes gave generations at once, a volume might keep
    # the older one.
    GIVING = 0x0CC0_6E4E
    # Batches in flight share this lock. A rebuild takes the lock alone, and so waits until all batches in flight have
    # ended.
    BATCHES_IN_FLIGHT = 0x0CC0_5E7C


@contextmanager
def advisory_lock(lock: Lock) -> Iterator[None]:
    """Wait for the lock, and hold it during the ``with`` block."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [lock.value])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [lock.value])


@contextmanager
def free_advisory_lock(lock: Lock) -> Iterator[bool]:
    """Hold the lock during the ``with`` block if no other session holds it. Yield True if this session holds the lock.
    The call never waits.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [lock.value])
        (is_held,) = cursor.fetchone()
        try:
            yield is_held
        finally:
            if is_held:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [lock.value])


@contextmanager
def shared_advisory_lock(lock: Lock) -> Iterator[None]:
    """Hold the lock in shared mode during the ``with`` block.

    The SQL is prepared, because each batch of writes runs it.
    """
    connection.ensure_connection()  # The thread keeps this connection, so the unlock goes to the same session.
    prepared.rows("SELECT pg_advisory_lock_shared(%s)", [lock.value])
    try:
        yield
    finally:
        # PostgreSQL has released the locks of a closed session.
        if connection.connection is not None and not connection.connection.closed:
            prepared.rows("SELECT pg_advisory_unlock_shared(%s)", [lock.value])
