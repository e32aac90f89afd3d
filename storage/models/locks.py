"""Advisory locks of PostgreSQL. A session holds them, so a process that dies gives them up.

``Job.request`` locks a kind and a subject by two numbers of 32 bits, which PostgreSQL keeps apart from these keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, unique

from django.db import connection

from storage.models.statements import prepared


@unique
class Lock(IntEnum):
    """What is locked, with its key. All processes of an installation must agree on a key, so none ever changes."""

    MIGRATING = 0x0CC5_7043  # One process at a time brings the schema up to date.
    PROVISIONING = 0x0CC0_B007  # One process at a time makes the cluster's row, its nodes and their volumes.
    RECLAIMING = 0x0CC0_F4EE  # One pass of reclaim runs at a time, as every pass assumes of what it has planned.
    GIVING = 0x0CC0_6E4E  # One process at a time gives the volumes a generation, so that no older one comes back.
    BATCHES_IN_FLIGHT = 0x0CC0_5E7C  # Writers share it; a rebuild takes it alone to wait for the writers before it.


@contextmanager
def advisory_lock(lock: Lock) -> Iterator[None]:
    """Hold the lock while the body runs; wait for it first."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [lock.value])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [lock.value])


@contextmanager
def free_advisory_lock(lock: Lock) -> Iterator[bool]:
    """Hold the lock while the body runs, if nobody else holds it; the body is told whether it is held."""
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
    """Hold the lock together with all who share it. Each batch of writes takes it: its statements are prepared."""
    connection.ensure_connection()  # The thread keeps this connection, so the unlock goes to the same session.
    prepared.rows("SELECT pg_advisory_lock_shared(%s)", [lock.value])
    try:
        yield
    finally:
        # A session that is closed has given its locks up.
        if connection.connection is not None and not connection.connection.closed:
            prepared.rows("SELECT pg_advisory_unlock_shared(%s)", [lock.value])
