"""Whether an upload can be taken, before its body is read: enough nodes, and enough room on them (RACES 7)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from storage.cluster.placement import acknowledgeable
from storage.cluster.topology import Topology
from storage.conf import configuration
from storage.exceptions import ClusterUnavailable, OutOfSpace, StagingUnavailable, VolumeError
from storage.models.statements import prepared
from storage.recent import Recent
from storage.staging.cutting import chunk_count
from storage.volumes import Space
from storage.volumes.base import Lack

SMALL = 256 << 10  # bytes of a body of which the headroom has room for as many as come between two looks
LOOK_SECONDS = 0.25  # for which a look at the free space is good; in twice that the headroom is not used up
LACKING = {"bytes": "free space", "files": "free inodes"}


def admit(size: int, factor: int) -> None:
    """Refuse a body that could not be acknowledged, before it is read.

    A look that is a little old may admit, and refuses nobody: a node may be back, and room again.

    Args:
        size: bytes at most that the client announced.
        factor: how many replicas it is to have.

    Raises:
        ClusterUnavailable: too few nodes are online.
        OutOfSpace: staging or too many nodes have no room for it next to what is already promised.
        StagingUnavailable: staging is missing or cannot be written to.
    """
    try:
        _require(_recent_room(Topology.recent()), size, factor)
    except (ClusterUnavailable, OutOfSpace):
        _require(_room.keep(lambda: _look_for_room(Topology.load())), size, factor)


def staging_lack() -> str:
    """What keeps staging from taking any upload now, in words; nothing when it could."""
    try:
        lack = _staging_space().lacks(files=1)
    except StagingUnavailable as error:
        return str(error)
    return f"staging has no {LACKING[lack]}" if lack else ""


def _require(room: Room, size: int, factor: int) -> None:
    needed = acknowledgeable(factor)
    if room.online < needed:
        raise ClusterUnavailable(f"fewer than {needed} nodes are online")
    if lack := room.staging.lacks(size, files=1):
        raise OutOfSpace(f"staging has too little {LACKING[lack]} for it")
    answering = room.nodes.total()
    if answering < needed <= answering + room.silent:
        raise ClusterUnavailable(f"fewer than {needed} nodes answer")
    copies = _Copies(room, room.promised if size <= SMALL else _promised(), size)
    if copies.fitting(factor) < needed:
        raise OutOfSpace(f"too few nodes have {_in_words(copies.lacking)} for it")


def _in_words(lacking: Iterable[Lack]) -> str:
    return " and ".join(LACKING[lack] for lack in sorted(lacking)) or "room"


@dataclass(frozen=True)
class Needs:
    """What uploads take on the nodes: bytes, and files, as each chunk is one."""

    size: int
    files: int


@dataclass(frozen=True)
class Room:
    """Where there is room.

    Attributes:
        topology: the nodes that were asked.
        online: nodes whose replicas count.
        staging: the room in staging.
        spaces: file system → its room, those of full nodes included.
        nodes: file system → how many nodes on it take replicas.
        silent: nodes that did not answer.
        promised: what uploads under way will need.
    """

    topology: Topology
    online: int
    staging: Space
    spaces: dict[str, Space]
    nodes: Counter[str]
    silent: int
    promised: Needs


_room: Recent[Room] = Recent(LOOK_SECONDS)


def _recent_room(topology: Topology) -> Room:
    return _room.see(lambda: _look_for_room(topology), fits=lambda seen: not _differs(topology, seen.topology))


def _differs(now: Topology, then: Topology) -> bool:
    return now is not then and now.members != then.members


def _look_for_room(topology: Topology) -> Room:
    promised = _promised()  # first: what has become a replica meanwhile is counted twice, and never not at all
    staging = _staging_space()
    spaces: dict[str, Space] = {}
    nodes: Counter[str] = Counter()
    silent = 0
    counting = [member for member in topology.members if member.counts]
    for member in counting:
        try:
            space = member.lane.call(member.lane.volume.space)
        except VolumeError:
            silent += member.accepts
            continue
        spaces[space.device] = space
        nodes[space.device] += member.accepts
    return Room(topology, len(counting), staging, spaces, nodes, silent, promised)


def _staging_space() -> Space:
    """The room on the file system of staging.

    Raises:
        StagingUnavailable: it is missing, or cannot be written to.
    """
    folder = configuration().staging_dir
    try:
        found, device = os.statvfs(folder), folder.stat().st_dev
    except OSError as error:
        raise StagingUnavailable(f"the staging folder cannot be used: {error.strerror}") from error
    # The effective user's rights; false for anybody, root too, where the file system is mounted read-only.
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise StagingUnavailable("the staging folder cannot be written to: its rights or its file system forbid it")
    return Space.of(found, str(device), writable=True)


def _promised() -> Needs:
    """What uploads under way have reserved. Each of their copies has one short chunk at most."""
    ((size, files),) = prepared.rows(
        """
        SELECT coalesce(sum(reserved), 0)::bigint, coalesce(sum(reserved / piece_size + replication_factor), 0)::bigint
          FROM storage_upload
        """,
        (),
    )
    return Needs(int(size), int(files))


class _Copies:
    """Copies of one upload, given to file systems one after the other: the nodes on one share its room."""

    def __init__(self, room: Room, promised: Needs, size: int) -> None:
        systems = max(1, len(+room.nodes))
        self._needs = Needs(size, chunk_count(size, configuration().chunk_size))
        self._nodes = room.nodes.copy()
        self._spaces = {
            device: space.less(promised.size // systems, promised.files // systems)
            for device, space in room.spaces.items()
        }

    def fitting(self, factor: int) -> int:
        """How many of ``factor`` copies find room."""
        for copies in range(factor):
            roomy = [device for device in self._spaces if self._nodes[device] and not self._lack(device)]
            if not roomy:
                return copies
            best = max(roomy, key=lambda device: self._spaces[device].free)
            self._spaces[best] = self._spaces[best].less(self._needs.size, self._needs.files)
            self._nodes[best] -= 1
        return factor

    @property
    def lacking(self) -> set[Lack]:
        """What keeps the file systems from taking one more copy."""
        return {lack for device in self._spaces if (lack := self._lack(device))}

    def _lack(self, device: str) -> Lack:
        return self._spaces[device].lacks(self._needs.size, self._needs.files)
