"""Taking turns among the processes of one machine."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from storage.conf import configuration

LOOK_AGAIN = 0.004  # seconds


class Turn:
    """A process's turn; it may be ended before its body."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def end(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


@contextmanager
def in_turn(name: str, seconds: float) -> Iterator[Turn]:
    """Wait until it is no other process's turn at this name, for so many seconds at most; then go on regardless.

    A courtesy, and no lock that anything may rely on. The kernel ends it with the process.
    """
    descriptor = os.open(configuration().storage_dir / f"{name}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        deadline = time.monotonic() + seconds
        while not _taken(descriptor) and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN)
        yield Turn(descriptor)
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
