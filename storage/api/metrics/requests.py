"""The metrics of requests. Each process counts the requests that it has answered.

The labels have few values: routes, methods, classes of statuses, codes of problems. No label has a hash or an owner.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from storage.api.metrics.routes import method_of

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
# For reads of these routes, the time until the answer begins is measured too.
STREAMED = frozenset(("/download/*", "/share/*", "/buckets/*", "s3:GetObject"))
READS = ("GET", "HEAD")

disable_created_metrics()  # The time at which a counter was made means nothing after a restart.
REGISTRY = CollectorRegistry(auto_describe=True)

_requests = Counter(
    "occ_http_requests_total",
    "Requests that were answered.",
    ("route", "method", "status"),
    registry=REGISTRY,
)
_seconds = Histogram(
    "occ_http_request_duration_seconds",
    "Time from the head of a request to the end of its answer.",
    ("route",),
    buckets=SECONDS,
    registry=REGISTRY,
)
_began = Histogram(
    "occ_download_wait_seconds",
    "Time from the head of a download to the head of its answer.",
    buckets=SECONDS,
    registry=REGISTRY,
)
_sent = Counter("occ_http_sent_bytes_total", "Bytes of answers' bodies that were sent.", ("route",), registry=REGISTRY)
_received = Counter("occ_http_received_bytes_total", "Bytes of requests' bodies that were read.", registry=REGISTRY)
_problems = Counter(
    "occ_http_problems_total", "Problem documents, by their code (docs/errors.md).", ("code",), registry=REGISTRY
)
_starts = Counter("occ_api_process_starts_total", "Starts of processes of the API.", registry=REGISTRY)


class Request:
    """The metrics of one request, from its head to the end of its answer."""

    __slots__ = ("_method", "_route", "_sent")

    def __init__(self, route: str, method: str) -> None:
        self._route = route
        self._method = method_of(method)
        self._sent = _sent_by(self._route)

    def answers(self, seconds: float) -> None:
        """Record that the head of the answer is sent, ``seconds`` after the request has come."""
        if self._route in STREAMED and self._method in READS:
            _began.observe(seconds)

    def sent(self, size: int) -> None:
        """Record that ``size`` bytes of the answer's body were sent."""
        self._sent.inc(size)

    def ended(self, status: int, seconds: float) -> None:
        """Record that the answer has ended, ``seconds`` after the request has come."""
        count, duration = _ended_as(self._route, self._method, status // 100)
        count.inc()
        duration.observe(seconds)


def received(size: int) -> None:
    """Count bytes of a request's body."""
    _received.inc(size)


def problem(code: str) -> None:
    """Count a problem document."""
    _problem_of(code).inc()


def process_started() -> None:
    """Count the start of a process of the API."""
    _starts.inc()


# prometheus-client finds a metric by its labels under a lock, which is slow. These caches keep what was found, with one
# entry for each combination of labels.


@lru_cache(maxsize=2048)
def _ended_as(route: str, method: str, hundreds: int) -> tuple[Any, Any]:
    return _requests.labels(route, method, f"{hundreds}xx"), _seconds.labels(route)


@lru_cache(maxsize=256)
def _sent_by(route: str) -> Any:
    return _sent.labels(route)


@lru_cache(maxsize=256)
def _problem_of(code: str) -> Any:
    return _problems.labels(code)
