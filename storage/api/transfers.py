"""How many requests may wait for their client at once: some threads always stay free for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from storage.exceptions import TooManyTransfers

THREADS = 64  # of each of gunicorn's processes
RESERVED = 8  # of them for requests that no client can hold up, such as /health

_slots = BoundedSemaphore(THREADS - RESERVED)


class Slot:
    """One transfer's place; given back once, however often it is released."""

    def __init__(self) -> None:
        """
        Raises:
            TooManyTransfers: all places are taken. Waiting for one would take the threads that are to stay free.
        """
        if not _slots.acquire(blocking=False):
            raise TooManyTransfers("too many transfers at once")
        self._held = True

    def release(self) -> None:
        if self._held:
            self._held = False
            _slots.release()


@contextmanager
def transfer() -> Iterator[None]:
    """Hold a place while the body runs; also a decorator, for whatever reads a body or waits for a worker.

    Raises:
        TooManyTransfers: all places are taken.
    """
    slot = Slot()
    try:
        yield
    finally:
        slot.release()
