"""What was seen a moment ago, where that is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """One thing, never None, that the threads of a process look at, and that one of them looks at for all.

    Whoever comes while it is looked at anew goes on with what was seen last, up to twice its age, and waits otherwise.
    """

    def __init__(self, seconds: float) -> None:
        """
        Args:
            seconds: for which a look is good.
        """
        self._seconds = seconds
        self._looking = Lock()
        self._era = 0  # raised by whoever knows that things have changed: what was being looked at then is not kept
        self._seen: tuple[int, float, T] | None = None

    def see(self, look: Callable[[], T], *, seconds: float | None = None, fits: Callable[[T], bool] | None = None) -> T:
        """What was seen lately, or is now.

        Args:
            look: sees it now; what it raises, its caller gets.
            seconds: for which a look is good to this caller.
            fits: whether it is good at all; if not, what is seen now is taken as it is.
        """
        good_for = self._seconds if seconds is None else seconds
        if (seen := self._lately(good_for, fits)) is not None:
            return seen
        old = self._lately(2 * good_for, fits)
        # Nobody waits longer than a look is good for: whoever looks may hang.
        looks = self._looking.acquire(timeout=good_for if old is None else 0)
        try:
            if old is not None and not looks:
                return old
            seen = self._lately(good_for, fits)
            return self.keep(look) if seen is None else seen
        finally:
            if looks:
                self._looking.release()

    def keep(self, look: Callable[[], T]) -> T:
        """Look now, whatever was seen before."""
        era = self._era
        value = look()
        self._seen = (era, time.monotonic(), value)
        return value

    @property
    def last(self) -> T | None:
        """What was seen last, whatever its age."""
        seen = self._seen
        return None if seen is None or seen[0] != self._era else seen[2]

    def forget(self) -> None:
        """Have the next one look again."""
        self._era += 1

    def _lately(self, seconds: float, fits: Callable[[T], bool] | None) -> T | None:
        seen = self._seen
        if seen is None or seen[0] != self._era or time.monotonic() - seen[1] > seconds:
            return None
        return None if fits is not None and not fits(seen[2]) else seen[2]
