"""Batches of chunks that are counted and then written or removed, for which a rebuild of a sketch waits (RACES 24)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from storage.models.locks import Lock, advisory_lock, shared_advisory_lock


@contextmanager
def batch_in_flight() -> Iterator[None]:
    """Held by whoever counts and then writes, so that a rebuild can wait for batches that a shadow missed.

    It is a shared advisory lock of this thread's PostgreSQL session. A worker that dies gives it up, and its writes
    have ended then too; one that only loses its session fails at its next commit.
    """
    with shared_advisory_lock(Lock.BATCHES_IN_FLIGHT):
        yield


def wait_for_batches() -> None:
    """Return once every batch that was in flight at the call has ended."""
    with advisory_lock(Lock.BATCHES_IN_FLIGHT):
        pass
