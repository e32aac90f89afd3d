"""Output to terminals, pipes and log files. A line that cannot be written is dropped, which is no error."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

STDOUT, STDERR = 1, 2
LOG_BYTES = 10 << 20  # A log file that has reached this size is renamed to ``.1``, the youngest of its old copies.
LOG_COPIES = 3


def say(text: str | bytes, descriptor: int = STDOUT) -> bool:
    """Write a text without a buffer.

    Returns:
        False if the text, or its end, was dropped: the terminal may be gone, or the disk full.
    """
    rest = text.encode(errors="replace") if isinstance(text, str) else text
    with suppress(OSError):
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    return not rest


class LogFile:
    """A file that one program's output is appended to, and that is rotated by size."""

    def __init__(self, path: Path, limit: int = LOG_BYTES, copies: int = LOG_COPIES) -> None:
        """
        Args:
            path: the file; it is made with the first write.
            limit: the size in bytes at which the file is rotated.
            copies: how many old files are kept, as ``path.1`` (the youngest), ``path.2`` and so on.
        """
        self.path = path
        self.limit = limit
        self.copies = copies
        self._descriptor: int | None = None
        self._torn = False

    def write(self, data: bytes) -> None:
        """Append ``data``, or drop it."""
        with suppress(OSError):
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # If a full disk has cut off the last line, a line break ends it, so that the next line can be read.
            self._torn = not say(b"\n" + data if self._torn else data, self._descriptor)
            if os.fstat(self._descriptor).st_size >= self.limit:
                self._rotate()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)  # ``os.close`` frees the descriptor even if it raises.

    def _rotate(self) -> None:
        names = [self.path, *(Path(f"{self.path}.{number}") for number in range(1, self.copies + 1))]
        for younger, older in reversed(list(pairwise(names))):
            with suppress(FileNotFoundError):
                younger.rename(older)
        self.close()
