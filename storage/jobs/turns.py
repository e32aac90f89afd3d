"""Let the processes of one machine take turns. A turn saves work, but is no lock: two processes may have it.

When a process ends, the kernel ends its turn. If no file can be locked, every process has the turn.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from storage.conf import configuration


class Turn:
    """A turn that a process keeps once it has it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Try to take the turn; True if it is this process's turn, which the process then keeps."""
        if self._descriptor is not None:
            return True
        path = configuration().storage_dir / f"{self._name}.turn"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def give_up(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def in_turn(name: str) -> Iterator[bool]:
    """Yield True if it is this process's turn. The process then keeps the turn until the ``with`` block ends."""
    turn = Turn(name)
    try:
        yield turn.take()
    finally:
        turn.give_up()
