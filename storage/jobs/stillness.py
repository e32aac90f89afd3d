"""How long something has stayed as it is, by the monotonic clock of the process that looks at it now and then.

No clock is compared: a clock that is set forward by an hour makes nobody look silent, and one that is set back hides
nobody's silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Stillness(Generic[K, V]):
    """Remembers what it was shown, and since when each value has been the same."""

    def __init__(self) -> None:
        self._since: dict[K, tuple[V, float]] = {}

    def unchanged(self, values: Mapping[K, V], seconds: float) -> list[K]:
        """The keys whose values have been the same for so long.

        Args:
            values: what there is now; keys that are not among them are forgotten.
            seconds: since a value was first shown.
        """
        now = monotonic()
        before = self._since
        self._since = {
            key: seen if (seen := before.get(key)) is not None and seen[0] == value else (value, now)
            for key, value in values.items()
        }
        return [key for key, (_, since) in self._since.items() if now - since >= seconds]
