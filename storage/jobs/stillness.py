"""Measure how long values have stayed the same, with the monotonic clock of the process that looks at them regularly.

No times of two clocks are compared. So an upload does not look silent because a clock was set forward by an hour, and a
silent upload is not missed because a clock was set back.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Stillness(Generic[K, V]):
    """Remembers the values that it was shown last, and since when each value has been the same."""

    def __init__(self) -> None:
        self._since: dict[K, tuple[V, float]] = {}

    def unchanged(self, values: Mapping[K, V], seconds: float) -> list[K]:
        """The keys of ``values`` whose values have been the same for at least ``seconds``.

        Args:
            values: key → value now. Keys that are not in ``values`` are forgotten.
            seconds: the time since a value was first shown.
        """
        now = monotonic()
        before = self._since
        self._since = {
            key: entry if (entry := before.get(key)) is not None and entry[0] == value else (value, now)
            for key, value in values.items()
        }
        return [key for key, (_, since) in self._since.items() if now - since >= seconds]
