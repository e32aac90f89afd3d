"""The progress of a backup or restore on the terminal."""

from __future__ import annotations

import time
from types import TracebackType

from django.core.management.base import OutputWrapper

from storage.plans import size

PAUSE = 0.5  # On a terminal, the line is renewed after this many seconds; a file gets a line less often.
PAUSE_IN_A_FILE = 10.0


class Progress:
    """Shows how many bytes are done; a terminal shows one line that changes."""

    def __init__(self, out: OutputWrapper, what: str) -> None:
        """
        Args:
            out: the output of the command.
            what: the first word of the line.
        """
        self._out = out
        self._what = what
        self._is_terminal = out.isatty()
        self._shown_at = time.monotonic() - PAUSE

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._shown_at < (PAUSE if self._is_terminal else PAUSE_IN_A_FILE):
            return
        self._shown_at = now
        share = 100 * done // total if total else 100
        line = f"{self._what}: {share} % ({size(done)} of {size(total)})"
        self._out.write(f"\r\x1b[K{line}" if self._is_terminal else line, ending="" if self._is_terminal else "\n")
        self._out.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_terminal:
            self._out.write("\r\x1b[K", ending="")
