"""The figures of the whole cluster as metrics. Every process of the API shows the same figures.

PostgreSQL, Redis and the volumes are asked at the same time, each with a time limit. If PostgreSQL, Redis or the
volumes do not answer, only the figures of that part are missing. A part that still hangs is not asked again. The
figures are kept for a few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError, connection
from prometheus_client.metrics_core import Metric

from storage.api.metrics.families import Figure, show
from storage.api.metrics.figures import EXAMINED, INFO, READY, SECONDS, STORED, TRACKED, has_answered
from storage.conf import VERSION
from storage.recent import Recent
from storage.services import figures, health
from storage.services.health import Health

log = structlog.get_logger(__name__)

GOOD_SECONDS = 5.0  # The figures of PostgreSQL, Redis and the health check are kept for this long.
PATIENCE = 4.0  # The seconds that each part may take. Prometheus waits ten seconds for the whole answer.


@dataclass(frozen=True)
class Part:
    """A part of the system that has figures.

    Attributes:
        name: the name of the part.
        ask: a function that asks the part for its figures; any error means that the part is away.
        figures: the metrics that are made of the part's figures.
    """

    name: str
    ask: Callable[[], Any]
    figures: Iterable[Figure[Any]]


HEALTH = "health"
PARTS = (
    Part("postgresql", figures.stored, STORED),
    Part("redis", figures.tracked, TRACKED),
    Part(HEALTH, health.examine, EXAMINED),
)


@dataclass(frozen=True)
class Answer:
    """The answer of a part.

    Attributes:
        found: the figures that the part's ``ask`` returned; None if it failed.
        seconds: the time until the part answered.
    """

    found: Any
    seconds: float


class Cluster:
    """A collector for prometheus-client."""

    def __init__(self, parts: Iterable[Part] = PARTS) -> None:
        self._parts = tuple(parts)
        self._threads = ThreadPoolExecutor(len(self._parts), thread_name_prefix="metrics")
        self._asked: dict[str, Future[Answer]] = {}
        self._recent: Recent[dict[str, Answer]] = Recent(GOOD_SECONDS)

    def collect(self) -> Iterator[Metric]:
        """Ask all parts of the system, unless they were asked a moment ago."""
        answers = self._recent.see(self._ask)
        yield INFO.show(VERSION)
        yield READY.show(_is_ready(answers[HEALTH].found) if HEALTH in answers else None)
        yield SECONDS.show({name: answer.seconds for name, answer in answers.items()})
        for part in self._parts:
            found = answers[part.name].found
            yield has_answered(part.name).show(found is not None)
            yield from show(part.figures, found)

    def _ask(self) -> dict[str, Answer]:
        for part in self._parts:
            asked = self._asked.get(part.name)
            if asked is None or asked.done():
                self._asked[part.name] = self._threads.submit(_asked, part)
        deadline = time.monotonic() + PATIENCE
        return {part.name: self._answer_of(part, deadline) for part in self._parts}

    def _answer_of(self, part: Part, deadline: float) -> Answer:
        try:
            return self._asked[part.name].result(max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            log.warning("metrics.late", part=part.name)
            return Answer(None, PATIENCE)


def _asked(part: Part) -> Answer:
    begun = time.monotonic()
    found = None
    try:
        found = part.ask()
    except Exception as error:  # noqa: BLE001  a part that is away may raise anything, and must not cost the others
        log.warning("metrics.part_away", part=part.name, error=repr(error))
    with suppress(DatabaseError, InterfaceError):
        connection.close()
    return Answer(found, time.monotonic() - begun)


def _is_ready(found: Health | None) -> bool:
    """True if the health check has answered, and has found no failing trouble."""
    return found is not None and not found.failing
