"""Counts of events in the whole cluster, for metrics. The counts are kept in Redis, and are lost if Redis is lost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock, Timer

import redis
import structlog

from storage.redis_connection import connect

log = structlog.get_logger(__name__)

KEY = "occ:counters"
FLUSH_AFTER = 1.0  # seconds in which counts are gathered: a thousand events then cost one call to Redis


class Event(StrEnum):
    """The events that are counted. Each count starts from 0 when Redis is emptied."""

    CHUNKS_READ = "chunks_read"  # chunks that were read for downloads
    LATER_LOOKS = "later_looks"  # chunks read that the first node on their route did not have
    FAILOVERS = "failovers"  # reads that went to another node, because the first one failed or had a bad copy
    MISSES_REPORTED = "misses_reported"  # copies that a reader missed although a sketch was nearly certain of them
    CORRUPT_FOUND = "corrupt_found"  # bad copies moved to quarantine
    REPLICAS_REPAIRED = "replicas_repaired"  # copies made because there were too few
    LOSSES_TRACED = "losses_traced"  # chunks that a trace found to lack copies
    REPLICAS_MOVED = "replicas_moved"  # copies that were moved to another node
    ORPHANS_FOUND = "orphans_found"  # copies of chunks that the database does not know
    GATHERINGS_FOUND = "gatherings_found"  # times that copies lay gathered on few nodes for an hour
    VOLUMES_BEHIND = "volumes_behind"  # volumes that turned out to be older than this database had left them
    LEFTOVERS_REMOVED = "leftovers_removed"  # unfinished writes of processes that died
    CHUNKS_RECLAIMED = "chunks_reclaimed"
    BYTES_RECLAIMED = "bytes_reclaimed"
    SKETCHES_REBUILT = "sketches_rebuilt"
    COPIES_MISSED = "copies_missed"  # copies that a node should have had, and that a rebuild did not find there
    SKETCH_DRIFT = "sketch_drift"  # wrong registers that a rebuild found while no copy came or went


class Outcome(StrEnum):
    """The ways in which an attempt at a job is over."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETRIED = "retried"  # The attempt failed, and another one follows.


JOB = "job"  # The field ``job:<kind>:<outcome>`` counts jobs.
SIZE = "size"  # The field ``size:<kind>`` counts bytes of work.


@dataclass(frozen=True)
class Counts:
    """The counts of all processes.

    Attributes:
        events: event → how often it happened.
        jobs: (kind of job, outcome) → how often it happened.
        sizes: kind of job → bytes of work that was done.
    """

    events: Mapping[str, int]
    jobs: Mapping[tuple[str, str], int]
    sizes: Mapping[str, int]


_pending: Counter[str] = Counter()
_lock = Lock()
_flusher: tuple[int, Timer] | None = None


def add(event: Event, number: int = 1) -> None:
    """Add ``number`` to the count of an event. This call never waits for Redis and never fails."""
    if number:
        _add({event: int(number)})  # A bool is an int too, but the client of Redis refuses it.


def add_jobs(kind: str, outcome: Outcome, number: int = 1, size: int = 0) -> None:
    """Count ``number`` jobs of one kind, whose work was ``size`` bytes. This call never waits and never fails."""
    if number:
        _add({f"{JOB}:{kind}:{outcome}": number, **({f"{SIZE}:{kind}": size} if size else {})})


def _add(counted: Mapping[str, int]) -> None:
    global _flusher
    with _lock:
        _pending.update(counted)
        # A timer thread does not survive a fork, so a child starts its own.
        if _flusher is None or _flusher[0] != os.getpid():
            timer = Timer(FLUSH_AFTER, flush)
            timer.daemon = True
            _flusher = (os.getpid(), timer)
            timer.start()


def flush() -> None:
    """Send this process's counts to Redis. If Redis does not answer, the counts are kept and sent later."""
    global _flusher
    with _lock:
        _flusher = None
        counted = dict(_pending)
        _pending.clear()
    try:
        with connect().pipeline(transaction=False) as pipe:
            for event, number in counted.items():
                pipe.hincrby(KEY, event, number)
            pipe.execute()
    except redis.RedisError as error:
        log.warning("counters.kept", error=str(error))
        with _lock:
            _pending.update(counted)


def totals() -> dict[str, int]:
    """Every event's count over all processes.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    return dict(read().events)


def read() -> Counts:
    """All counts over all processes.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    answer: Mapping[bytes, bytes] = connect().hgetall(KEY)  # type: ignore[assignment]  # The client answers bytes.
    fields = {name.decode(): int(count) for name, count in answer.items()}
    jobs, sizes = {}, {}
    for name, count in fields.items():
        what, _, rest = name.partition(":")
        if what == JOB:
            kind, _, outcome = rest.rpartition(":")
            jobs[kind, outcome] = count
        elif what == SIZE:
            sizes[rest] = count
    return Counts({str(event): fields.get(event, 0) for event in Event}, jobs, sizes)
