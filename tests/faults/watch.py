"""Watch the log, the jobs and the estimates of an installation during a scenario, and print one line."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from tests.support.installation import Installation
from tests.support.system import wait_until

ALARMS = frozenset(
    {
        "census.contradicted",
        "chunks.lost",
        "copies.gathered",
        "database.older",
        "losses.proven",
        "sketch.contradicted",
        "volume.behind",
    }
)
"""Events of the log which say that copies vanished or are badly spread.

On a healthy cluster, each event is a false alarm.
"""


class Watch:
    """A watch over an installation, which begins when this object is made."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self._logs = Path(installation.system.storage_dir) / "logs"
        self._jobs = jobs(installation)
        self._z = largest_z(installation)
        self._read = {log: log.stat().st_size for log in self._logs.glob("*.log")}
        self._since = time.monotonic()
        self._noticed = 0.0

    def restart(self) -> None:
        """Begin to measure the time now."""
        self._since = time.monotonic()

    def events(self) -> Counter[str]:
        """How often each event was logged since the watch began."""
        return Counter(line["event"] for line in self._lines())

    def _lines(self) -> Iterator[dict[str, Any]]:
        for log in self._logs.glob("*.log"):
            with log.open("rb") as lines:
                lines.seek(self._read.get(log, 0))
                for line in lines:
                    # A line that is still being written is read next time.
                    if line.startswith(b'{"') and line.endswith(b"}\n"):
                        yield {"event": "", **json.loads(line)}

    def census(self) -> Counter[str]:
        """Sum the results, such as ``short``, of all censuses that have ended since the watch began."""
        found: Counter[str] = Counter()
        for line in self._lines():
            if line["event"] == "census.done":
                found.update({name: number for name, number in line.items() if isinstance(number, int)})
        return found

    def await_notice(self, events: Collection[str], limit: float) -> None:
        """Wait until one of these events is logged."""
        self.await_that(lambda: self.events().keys() & set(events), limit)

    def await_that(self, is_noticed: Callable[[], object], limit: float) -> None:
        """Wait until ``is_noticed`` says that the installation has noticed the fault, and record how long that took."""
        wait_until(is_noticed, limit, lambda: str(dict(self.events())))
        self._noticed = time.monotonic() - self._since

    def await_whole(self, is_whole: Callable[[], object], limit: float) -> float:
        """Wait until ``is_whole`` says that no copy is missing. Return the seconds since the watch began to measure."""
        wait_until(is_whole, limit, lambda: str(dict(self.events())))
        return time.monotonic() - self._since

    def tell(self, scenario: str, whole: float, true_alarms: Collection[str] = ()) -> None:
        """Print the result of a scenario, and fail the test if there was a false alarm.

        Args:
            scenario: the name of the scenario.
            whole: seconds until no copy was missing.
            true_alarms: the alarms that the scenario causes. An alarm that is not in ``true_alarms`` fails the test.
        """
        asked = jobs(self.installation) - self._jobs
        before, after = (f"{z:.1f}" if z is not None else "?" for z in (self._z, largest_z(self.installation)))
        asked_for = ", ".join(f"{number} {kind}" for kind, number in sorted(asked.items())) or "nothing"
        print(
            f"{scenario}: noticed after {self._noticed:.1f} s, whole after {whole:.1f} s; jobs: {asked_for}; "
            f"largest z {before} before, {after} after"
        )
        self.require_no_alarms(true_alarms)

    def require_no_alarms(self, but: Collection[str] = ()) -> None:
        """Fail the test if an alarm was raised that is not one of ``but``."""
        false = {event: number for event, number in self.events().items() if event in ALARMS.difference(but)}
        assert not false, false


def jobs(installation: Installation) -> Counter[str]:
    """Count the jobs of each kind that there have been, except the jobs of uploads."""
    return Counter(json.loads(installation.run("print_jobs")))


def status(installation: Installation) -> dict[str, Any]:
    """The document of ``/status``."""
    code, document = installation.journal.ask("/status")
    assert code == 200, document
    return dict(document)


def largest_z(installation: Installation) -> float | None:
    """Return the largest absolute z score of the overlap of two nodes, or None while sketches are missing."""
    overlap = status(installation)["overlap"]
    return max((abs(z) for row in overlap["z"] for z in row), default=None) if overlap else None
