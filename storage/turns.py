"""Taking turns among the processes of one machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from storage.conf import configuration


@contextmanager
def in_turn(name: str) -> Iterator[bool]:
    """Whether it is this process's turn, and no other one's, while the body runs.

    A courtesy, and no lock that anything may rely on. The kernel ends it with the process.
    """
    descriptor = os.open(configuration().storage_dir / f"{name}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        yield _is_free(descriptor)
    finally:
        os.close(descriptor)


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
