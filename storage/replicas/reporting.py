"""Report bad copies, missing copies, and contents that can be read after all. Readers report, workers judge (RACES 16).

A bad copy is reported each time that a reader meets it. Reports of missing copies and of readable contents are limited
in number, so that a node that lost many chunks causes no storm of jobs. A finding that is not reported is found again
by the next reader, or by an audit.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from threading import Lock

import structlog
from django.db import DatabaseError

from storage import counters
from storage.cluster.topology import Member, Topology
from storage.counters import Event
from storage.models import Content, Job
from storage.tracking import routing

log = structlog.get_logger(__name__)

REMEMBERED = 4096  # A process remembers this many reported chunks, and as many contents: half a megabyte for each kind.
FORGET_CHUNK = 300.0  # After this many seconds a chunk is reported again: a worker has had the time to mend it.
FORGET_CONTENT = 60.0  # After this many seconds a content is reported again.
REPORTS_PER_SECOND = 4  # A worker needs tens of milliseconds per report, and must have time for other work.
NODE_MISSES = 20  # A node that lacks this many chunks within NODE_SPAN seconds is listed as a whole.
NODE_SPAN = 60.0
NODE_PAUSE = 600.0  # For this many seconds no chunk of a listed node is reported: to list and mend a node takes time.


class Lately:
    """Remembers for some seconds which things were done, at most ``most`` of them. Its callers hold a lock."""

    def __init__(self, seconds: float, most: int = REMEMBERED) -> None:
        """
        Args:
            seconds: how long a thing is remembered.
            most: the largest number of things to remember. A further thing replaces the oldest one.
        """
        self._seconds = seconds
        self._most = most
        self._since: OrderedDict[Hashable, float] = OrderedDict()

    def has(self, thing: Hashable, now: float) -> bool:
        """True if the thing was done in the last ``seconds``."""
        since = self._since.get(thing)
        return since is not None and now - since < self._seconds

    def add(self, thing: Hashable, now: float) -> None:
        """Remember that the thing is done now."""
        self._since[thing] = now
        self._since.move_to_end(thing)
        if len(self._since) > self._most:
            self._since.popitem(last=False)


class Worth(Enum):
    """What to do about a missing copy."""

    NOTHING = auto()
    LOOK_FOR_CHUNK = auto()
    LIST_NODE = auto()


class Misses:
    """Decides which missing copies are reported, for all threads of a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: returns seconds that never go back.
        """
        self._clock = clock
        self._lock = Lock()
        self._reported = Lately(FORGET_CHUNK)
        self._times: deque[float] = deque(maxlen=REPORTS_PER_SECOND)
        self._missing: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._listed = Lately(NODE_PAUSE)

    def is_known(self, chunk_hash: str, node_id: str = "") -> bool:
        """True if the chunk, or the whole node, has been reported lately."""
        with self._lock:
            return self._is_known(chunk_hash, node_id, self._clock())

    def weigh(self, chunk_hash: str, node_id: str = "") -> Worth:
        """Decide what to do about one missing copy, and remember it as reported if the caller should report it.

        Args:
            chunk_hash: the chunk.
            node_id: the node that lacks the chunk; empty if no node is to blame.
        """
        with self._lock:
            now = self._clock()
            if self._is_known(chunk_hash, node_id, now):
                return Worth.NOTHING
            if node_id and self._has_lost_many(node_id, chunk_hash, now):
                self._listed.add(node_id, now)
                return Worth.LIST_NODE
            if len(self._times) == REPORTS_PER_SECOND and now - self._times[0] < 1.0:
                return Worth.NOTHING
            self._times.append(now)
            self._reported.add(chunk_hash, now)
            return Worth.LOOK_FOR_CHUNK

    def _is_known(self, chunk_hash: str, node_id: str, now: float) -> bool:
        return self._listed.has(node_id, now) or self._reported.has(chunk_hash, now)

    def _has_lost_many(self, node_id: str, chunk_hash: str, now: float) -> bool:
        """Note that a node lacks a chunk; True if it lacks many. A chunk counts once, however many readers miss it."""
        lately = {h: at for h, at in self._missing[node_id].items() if now - at < NODE_SPAN}
        lately[chunk_hash] = now
        many = len(lately) >= NODE_MISSES
        self._missing[node_id] = {} if many else lately
        return many


_misses = Misses()
_readable = Lately(FORGET_CONTENT)
_readable_lock = Lock()


def report(chunk_hash: str) -> None:
    """Queue the repair of a chunk with a bad copy. If PostgreSQL is away, a later read or audit finds the copy."""
    with _or_lost(chunk=chunk_hash):
        Job.request(Job.Kind.REPAIR, chunk_hash)


def report_miss(topology: Topology, chunk_hash: str, member: Member, factor: int) -> None:
    """Queue the repair of a chunk that a node lacks although the node's sketch is nearly certain of it.

    The register is read from Redis again before the miss is reported. Readers use sketches that are up to a second old:
    such a sketch may lack a chunk that was just written, or still count a copy that was just removed. If a node lacks
    many chunks, the whole node is listed, and its chunks are not reported one by one. A wrong report costs one look at
    all nodes.

    Args:
        topology: the nodes.
        chunk_hash: the chunk.
        member: the node that lacks the chunk.
        factor: the number of replicas that the chunk should have.
    """
    if not _misses.is_known(chunk_hash, member.node_id):
        (route,) = routing.locate_now(topology, [chunk_hash], factor)
        if route.is_certain(member):
            _look_for(chunk_hash, member.node_id)


def report_rescue(chunk_hash: str) -> None:
    """Queue the repair of a chunk that a reader found only in the trash. The repair brings the chunk back."""
    _look_for(chunk_hash)


def report_readable(content_id: int) -> None:
    """Queue a new summary for a content that could be read to its end, although its summary says "unretrievable"."""
    with _readable_lock:
        now = time.monotonic()
        if _readable.has(content_id, now):
            return
        _readable.add(content_id, now)
    with _or_lost(content=content_id):
        if Content.objects.filter(pk=content_id, retrievable=False).update(health_epoch=-1):
            Job.request(Job.Kind.REFRESH_HEALTH, "all")
            log.info("content.readable_again", content=content_id)


def _look_for(chunk_hash: str, node_id: str = "") -> None:
    worth = _misses.weigh(chunk_hash, node_id)
    if worth is Worth.NOTHING:
        return
    counters.add(Event.MISSES_REPORTED)
    log.warning("replica.missed", chunk=chunk_hash, node=node_id or None, listing=worth is Worth.LIST_NODE)
    with _or_lost(chunk=chunk_hash):
        if worth is Worth.LIST_NODE:
            Job.ensure(Job.Kind.RECONCILE, node_id)
        else:
            Job.request(Job.Kind.REPAIR, chunk_hash)


@contextmanager
def _or_lost(**subject: object) -> Iterator[None]:
    """Only log an error of PostgreSQL in the ``with`` block: a lost report must not end the reader's read."""
    try:
        yield
    except DatabaseError as error:
        log.warning("report.lost", error=str(error), **subject)
