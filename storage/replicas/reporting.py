"""Readers report, workers judge (RACES 16): bad copies, missing ones, and contents that can be read after all.

A bad copy is reported each time. What else readers find is reported within bounds, so that a node that lost many chunks
makes no storm of jobs. Whatever is not reported is found by the next reader, or by an audit.
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

REMEMBERED = 4096  # Reports of one process, of chunks and of contents: about half a megabyte each.
FORGET_CHUNK = 300.0  # A chunk is reported again after so many seconds: a worker has had the time to mend it.
FORGET_CONTENT = 60.0  # A content is reported again after so many seconds.
REPORTS_PER_SECOND = 4  # A worker needs tens of milliseconds for each; a process may not keep it from other work.
NODE_MISSES = 20  # A node that lacks so many chunks within NODE_SPAN seconds is listed as a whole.
NODE_SPAN = 60.0
NODE_PAUSE = 600.0  # No chunk of that node is reported for so many seconds: listing and mending it take their time.


class Lately:
    """Remembers what was done in the last seconds, up to a number of things. Its caller holds a lock."""

    def __init__(self, seconds: float, most: int = REMEMBERED) -> None:
        """
        Args:
            seconds: for which a thing is remembered.
            most: number of things; the oldest one is forgotten for a new one.
        """
        self._seconds = seconds
        self._most = most
        self._since: OrderedDict[Hashable, float] = OrderedDict()

    def has(self, thing: Hashable, now: float) -> bool:
        """Whether the thing was done lately."""
        since = self._since.get(thing)
        return since is not None and now - since < self._seconds

    def add(self, thing: Hashable, now: float) -> None:
        """Remember that the thing is done now."""
        self._since[thing] = now
        self._since.move_to_end(thing)
        if len(self._since) > self._most:
            self._since.popitem(last=False)


class Worth(Enum):
    """What a missing copy is worth."""

    NOTHING = auto()
    LOOK_FOR_CHUNK = auto()
    LIST_NODE = auto()


class Misses:
    """Decides which missing copies are reported, for all threads of a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: seconds that never go back.
        """
        self._clock = clock
        self._lock = Lock()
        self._reported = Lately(FORGET_CHUNK)
        self._times: deque[float] = deque(maxlen=REPORTS_PER_SECOND)
        self._missing: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._listed = Lately(NODE_PAUSE)

    def is_known(self, chunk_hash: str, node_id: str = "") -> bool:
        """Whether the chunk, or the whole node, has been reported already."""
        with self._lock:
            return self._is_known(chunk_hash, node_id, self._clock())

    def weigh(self, chunk_hash: str, node_id: str = "") -> Worth:
        """Decide about one missing copy, and take it as reported if it is worth a report.

        Args:
            chunk_hash: the chunk.
            node_id: the node that lacks it; empty if no node is to blame.
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
        """Note one more chunk that a node lacks; a chunk counts once, however many readers miss it."""
        lately = {h: at for h, at in self._missing[node_id].items() if now - at < NODE_SPAN}
        lately[chunk_hash] = now
        many = len(lately) >= NODE_MISSES
        self._missing[node_id] = {} if many else lately
        return many


_misses = Misses()
_readable = Lately(FORGET_CONTENT)
_readable_lock = Lock()


def report(chunk_hash: str) -> None:
    """Have a worker judge the copies of a chunk; without a database the next reader, or an audit, finds them again."""
    with _or_lost(chunk=chunk_hash):
        Job.request(Job.Kind.REPAIR, chunk_hash)


def report_miss(topology: Topology, chunk_hash: str, member: Member, factor: int) -> None:
    """Have a worker look for the copies of a chunk that a node lacks though its sketch is nearly certain of it.

    The sketch is asked again first: readers go by what it said up to a second ago, when it may not have known a chunk
    that was just written, or still have known a copy that was just removed. A node that lacks many chunks is listed as
    a whole instead. A report that was wrong costs a look at all nodes.

    Args:
        topology: the nodes.
        chunk_hash: the chunk.
        member: the node that lacks it.
        factor: replicas that the chunk should have.
    """
    if not _misses.is_known(chunk_hash, member.node_id):
        (route,) = routing.locate_now(topology, [chunk_hash], factor)
        if route.is_certain(member):
            _look_for(chunk_hash, member.node_id)


def report_rescue(chunk_hash: str) -> None:
    """Have a worker bring a chunk back that a reader found nowhere but in the trash."""
    _look_for(chunk_hash)


def report_readable(content_id: int) -> None:
    """Have a worker look again at a content that could be read to its end though its summary says it cannot."""
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
    """A report that PostgreSQL does not take is lost: it must not end the read that it comes from."""
    try:
        yield
    except DatabaseError as error:
        log.warning("report.lost", error=str(error), **subject)
