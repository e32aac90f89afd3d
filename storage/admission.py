"""Whether an upload can be taken, before its body is read: enough nodes, and enough room on them (RACES 7)."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from storage.conf import configuration
from storage.exceptions import ClusterUnavailable, OutOfSpace, VolumeError
from storage.models import prepared
from storage.placement import acknowledgeable
from storage.recent import Recent
from storage.topology import Topology

HEADROOM = 256 << 20  # kept free on every file system, for PostgreSQL and for what was under way
SMALL = 256 << 10  # bytes of a body of which the headroom has room for as many as come between two looks
LOOK_SECONDS = 0.25  # for which a look at the free space is good; in twice that the headroom is not used up


def admit(size: int, factor: int) -> None:
    """Refuse a body that could not be acknowledged, before it is read.

    A look that is a little old may admit, and refuses nobody: a node may be back, and room again.

    Args:
        size: bytes at most that the client announced.
        factor: how many replicas it is to have.

    Raises:
        ClusterUnavailable: too few nodes are online.
        OutOfSpace: too few nodes have room for it beside what is already promised.
    """
    try:
        _require(_recent_room(Topology.recent()), size, factor)
    except (ClusterUnavailable, OutOfSpace):
        _require(_room.keep(lambda: _look_for_room(Topology.load())), size, factor)


def _require(room: Room, size: int, factor: int) -> None:
    needed = acknowledgeable(factor)
    if room.online < needed:
        raise ClusterUnavailable(f"fewer than {needed} nodes are online")
    if room.staging < size + HEADROOM:
        raise OutOfSpace("staging has no room for it")
    answering = room.nodes.total()
    if answering < needed <= answering + room.silent:
        raise ClusterUnavailable(f"fewer than {needed} nodes answer")
    if _copies(room, room.promised if size <= SMALL else _promised(), size, factor) < needed:
        raise OutOfSpace("too few nodes have room for it")


@dataclass(frozen=True)
class Room:
    """Where there is room, in bytes.

    Attributes:
        topology: the nodes that were asked.
        online: nodes whose replicas count.
        staging: free bytes of staging.
        free: file system → its free bytes.
        nodes: file system → how many nodes share it.
        silent: nodes that did not answer.
        promised: what uploads under way will need.
    """

    topology: Topology
    online: int
    staging: int
    free: dict[str, int]
    nodes: Counter[str]
    silent: int
    promised: int


_room: Recent[Room] = Recent(LOOK_SECONDS)


def _recent_room(topology: Topology) -> Room:
    return _room.see(lambda: _look_for_room(topology), fits=lambda seen: not _differs(topology, seen.topology))


def _differs(now: Topology, then: Topology) -> bool:
    return now is not then and now.members != then.members


def _look_for_room(topology: Topology) -> Room:
    promised = _promised()  # first: what has become a replica meanwhile is counted twice, and never not at all
    staging = os.statvfs(configuration().staging_dir)
    free: dict[str, int] = {}
    nodes: Counter[str] = Counter()
    silent = 0
    for member in topology.accepting:
        try:
            space = member.lane.call(member.lane.volume.space)
        except VolumeError:
            silent += 1
            continue
        free[space.device] = space.free
        nodes[space.device] += 1
    online = sum(member.counts for member in topology.members)
    return Room(topology, online, staging.f_bavail * staging.f_frsize, free, nodes, silent, promised)


def _promised() -> int:
    ((total,),) = prepared.rows("SELECT coalesce(sum(reserved), 0)::bigint FROM storage_upload", ())
    return int(total)


def _copies(room: Room, promised: int, size: int, factor: int) -> int:
    """How many of ``factor`` copies would find room: nodes on one file system share it."""
    free, nodes = dict(room.free), room.nodes.copy()
    share = promised // max(1, len(free))
    copies = 0
    for _ in range(factor):
        roomy = [device for device in free if nodes[device] and free[device] - share - HEADROOM >= size]
        if not roomy:
            break
        best = max(roomy, key=free.__getitem__)
        free[best] -= size
        nodes[best] -= 1
        copies += 1
    return copies
