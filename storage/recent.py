"""A cache for values that may be a moment old."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """A cached value, never None, that the threads of a process share.

    When the value expires, one thread refreshes it. The other threads use the old value until its age is twice the
    allowed age, and then wait.
    """

    def __init__(self, seconds: float) -> None:
        """
        Args:
            seconds: how long a value is good.
        """
        self._seconds = seconds
        self._looking = Lock()
        self._era = 0  # ``forget`` raises this number. A value whose look began before the raise is never used.
        self._seen: tuple[int, float, T] | None = None

    def see(self, look: Callable[[], T], *, seconds: float | None = None, fits: Callable[[T], bool] | None = None) -> T:
        """The cached value, or a new one.

        Args:
            look: makes a new value; the caller gets its exceptions.
            seconds: how long a value is good for this caller; by default as long as the constructor was told.
            fits: tells whether the cached value may be used; a new value is not tested.
        """
        good_for = self._seconds if seconds is None else seconds
        if (value := self._lately(good_for, fits)) is not None:
            return value
        old = self._lately(2 * good_for, fits)
        # A thread waits no longer than a value is good, because the thread that refreshes it may hang.
        looks = self._looking.acquire(timeout=good_for if old is None else 0)
        try:
            if old is not None and not looks:
                return old
            value = self._lately(good_for, fits)
            return self.keep(look) if value is None else value
        finally:
            if looks:
                self._looking.release()

    def keep(self, look: Callable[[], T]) -> T:
        """Make a new value now, whatever is cached."""
        era = self._era
        value = look()
        self._seen = (era, time.monotonic(), value)
        return value

    @property
    def last(self) -> T | None:
        """The last value, whatever its age; None if there is none, or after ``forget``."""
        entry = self._seen
        return None if entry is None or entry[0] != self._era else entry[2]

    def forget(self) -> None:
        """Make the next call of ``see`` look again."""
        self._era += 1

    def _lately(self, seconds: float, fits: Callable[[T], bool] | None) -> T | None:
        entry = self._seen
        if entry is None or entry[0] != self._era or time.monotonic() - entry[1] > seconds:
            return None
        return None if fits is not None and not fits(entry[2]) else entry[2]
