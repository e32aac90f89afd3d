"""Read chunks. Every chunk is verified before a caller gets a byte of the chunk. If one node fails, the next node is
asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

import structlog

from storage import counters
from storage.cluster.topology import Topology
from storage.counters import Event
from storage.exceptions import ContentGone, ContentUnavailable, ReplicaCorrupt, ReplicaMissing, VolumeError
from storage.replicas.finding import has_hash, read_verified, rescue_verified
from storage.replicas.reporting import report, report_miss, report_rescue
from storage.tracking import routing
from storage.tracking.routing import Route
from storage.volumes import Lane

log = structlog.get_logger(__name__)

LOCATE_CHUNKS = 64
READ_AHEAD_BYTES = 4 << 20
READ_AHEAD_CHUNKS = 8


@dataclass
class _Begun:
    """A chunk that was read from memory, or whose read has been started on the first node of its route.

    Attributes:
        chunk_hash: SHA-256 in hex.
        route: the nodes in the order in which to ask them for the chunk.
        data: the bytes, if they were in memory.
        first: the read that was started on the first node of the route.
    """

    chunk_hash: str
    route: Route
    data: bytes | None = None
    first: Future[bytes] | None = None


def read(topology: Topology, chunk_hash: str, route: Route, first: Future[bytes] | None = None) -> bytes:
    """Read one chunk from the first node on its route that has a good copy.

    Three findings on the way are reported: a bad copy, a copy that is missing although a sketch was nearly certain of
    it, and a copy that was only in the trash. The reader itself neither moves nor mends a copy (RACES 16).

    Args:
        topology: the nodes. The nodes that are not on the route are asked last.
        chunk_hash: SHA-256 in hex.
        route: the nodes in the order in which to ask them for the chunk.
        first: the read that was already started on the first node of the route, if there is one.

    Raises:
        ContentUnavailable: no good copy was found, and some node did not answer or has a bad copy.
        ContentGone: every node answered that it has no copy.
    """
    order = list(route.order) + [member for member in topology.members if member not in route.order]
    absent = True
    for member in order:
        try:
            future, first = first or member.lane.submit(read_verified, member.lane.volume, chunk_hash), None
            data = member.lane.result(future)
            counters.add(Event.LATER_LOOKS, member is not order[0])
            return data
        except ReplicaMissing:
            if route.is_certain(member):
                report_miss(topology, chunk_hash, member, route.target)
            continue
        except ReplicaCorrupt:
            log.warning("replica.corrupt", chunk=chunk_hash, node=member.node_id)
            counters.add(Event.FAILOVERS)
            report(chunk_hash)
        except VolumeError as error:
            log.warning("read.failed_over", chunk=chunk_hash, node=member.node_id, error=str(error))
            counters.add(Event.FAILOVERS)
        absent = False
    for member in order:
        try:
            data = member.lane.call(rescue_verified, member.lane.volume, chunk_hash)
        except VolumeError:
            continue
        report_rescue(chunk_hash)
        return data
    if absent:
        raise ContentGone(f"no node has chunk {chunk_hash}")
    raise ContentUnavailable(f"no node that answers has a good copy of chunk {chunk_hash}")


def read_ahead(topology: Topology, chunk_hashes: Iterator[str], chunk_size: int, factor: int) -> Iterator[bytes]:
    """Read chunks in order, and start the next reads while earlier chunks are still being read.

    A chunk that the operating system has in memory is read at once. The other chunks are read in their nodes' lanes.

    Args:
        topology: the nodes.
        chunk_hashes: the hashes in order. The iterator is only advanced as far as chunks are needed.
        chunk_size: the size in bytes of the largest chunk.
        factor: the number of replicas that the chunks should have.
    """
    depth = max(1, min(READ_AHEAD_CHUNKS, READ_AHEAD_BYTES // chunk_size))
    reads: deque[_Begun] = deque()
    number = 0
    try:
        for chunk_hash, route in _located(topology, chunk_hashes, factor):
            number += 1
            reads.append(_begin(chunk_hash, route))
            while reads and (reads[0].data is not None or len(reads) >= depth):
                yield _end(topology, reads.popleft())
        while reads:
            yield _end(topology, reads.popleft())
    finally:
        counters.add(Event.CHUNKS_READ, number)


def _located(topology: Topology, chunk_hashes: Iterator[str], factor: int) -> Iterator[tuple[str, Route]]:
    while batch := list(islice(chunk_hashes, LOCATE_CHUNKS)):
        yield from zip(batch, routing.locate(topology, batch, factor), strict=True)


def _begin(chunk_hash: str, route: Route) -> _Begun:
    if not route.order:
        return _Begun(chunk_hash, route)
    lane = route.order[0].lane
    if (data := _read_in_place(lane, chunk_hash)) is not None:
        return _Begun(chunk_hash, route, data)
    try:
        return _Begun(chunk_hash, route, first=lane.submit(read_verified, lane.volume, chunk_hash))
    except VolumeError:
        return _Begun(chunk_hash, route._replace(order=route.order[1:]))


def _read_in_place(lane: Lane, chunk_hash: str) -> bytes | None:
    """Return the chunk if a good copy is in memory, else None. A read from memory cannot hang, so it needs no lane.

    If the copy in memory is bad, the result is None too: the read in the lane then finds the bad copy and reports it.
    """
    if lane.breaker.is_open:
        return None
    data = lane.volume.read_cached(chunk_hash)
    return data if data is not None and has_hash(data, chunk_hash) else None


def _end(topology: Topology, begun: _Begun) -> bytes:
    if begun.data is not None:
        return begun.data
    return read(topology, begun.chunk_hash, begun.route, begun.first)
