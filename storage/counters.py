"""Counts of failures and repairs in the cluster, for metrics. They are kept in Redis, and are lost if Redis is lost."""

from __future__ import annotations

import os
from collections import Counter
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

    FAILOVERS = "failovers"  # reads that went to another node, because the first one failed or had a bad copy
    MISSES_REPORTED = "misses_reported"  # copies that a sketch was nearly certain of, and a reader did not find
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
    SKETCH_DRIFT = "sketch_drift"  # registers that a rebuild of a quiet node found to be wrong


_pending: Counter[str] = Counter()
_lock = Lock()
_flusher: tuple[int, Timer] | None = None


def add(event: Event, number: int = 1) -> None:
    """Add ``number`` to the count of an event. This call never waits for Redis and never fails."""
    global _flusher
    if not number:
        return
    with _lock:
        _pending[event] += number
        # A timer thread does not survive a fork, so a child starts its own.
        if _flusher is None or _flusher[0] != os.getpid():
            timer = Timer(FLUSH_AFTER, flush)
            timer.daemon = True
            _flusher = (os.getpid(), timer)
            timer.start()


def flush() -> None:
    """Send this process's counts to Redis. If Redis does not answer, they are kept and sent with the next count."""
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
    counts = connect().hgetall(KEY)
    return {str(event): int(counts.get(event.encode(), 0)) for event in Event}
