"""Files and directories by their names below a directory's descriptor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Descriptor:
    """An open file or directory. It is closed when nobody holds the object any more."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


@contextmanager
def open_at(directory: int | None, name: str, flags: int, mode: int = 0o640) -> Iterator[int]:
    """Open a file or directory, and close it after the body; ``mode`` is the mode of a file that this call makes."""
    descriptor = os.open(name, flags, mode, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_directory(directory: int | None, name: str) -> None:
    """Make the names in a directory durable."""
    with open_at(directory, name, DIRECTORY) as descriptor:
        os.fsync(descriptor)


def read_file(directory: int, name: str, *, uncached: bool = False) -> bytes:
    """The bytes of a file. If ``uncached``, the kernel is first asked to drop its cached pages of the file."""
    with open_at(directory, name, os.O_RDONLY | os.O_CLOEXEC) as descriptor:
        if uncached:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, size + 1)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
        return data


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of the bytes at the descriptor's position."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
