"""Batches of chunks that are counted and then written, or removed. The rebuild of a sketch waits until all batches in
flight have ended (RACES 24).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from storage.models.locks import Lock, advisory_lock, shared_advisory_lock


@contextmanager
def batch_in_flight() -> Iterator[None]:
    """Mark a batch as in flight while the ``with`` block counts and then writes copies, or removes copies.

    A rebuild waits for the batch, because the new sketch has none of the counts that the batch made before the rebuild
    began.

    The mark of a batch in flight is a shared advisory lock of this thread's PostgreSQL session. If a worker dies, the
    lock is released, and the worker's writes have ended too. A worker that only loses its session fails at its next
    commit.
    """
    with shared_advisory_lock(Lock.BATCHES_IN_FLIGHT):
        yield


def wait_for_batches() -> None:
    """Return once every batch that was in flight at the call has ended."""
    with advisory_lock(Lock.BATCHES_IN_FLIGHT):
        pass
