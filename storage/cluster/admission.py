"""Admission: before a body is read, check that enough nodes are there and have enough room for it (RACES 7)."""

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

# Bodies up to this size are admitted without re-reading what uploads have reserved: the headroom covers all small
# bodies that can arrive between two looks.
SMALL = 256 << 10
# A look at the free space is used for up to twice this time. While a look is used, small bodies cannot fill the
# headroom.
LOOK_SECONDS = 0.25
LACKING = {"bytes": "free space", "files": "free inodes"}


def admit(size: int, factor: int) -> None:
    """Refuse a body that could not be acknowledged, before it is read.

    A look that is a little old may admit a body, but never refuses a body: nodes or room may have come back since the
    look. So the cluster is looked at again before a refusal.

    Args:
        size: the largest size of the body in bytes that the client announced; 0 if it announced none.
        factor: the number of replicas that the file should have.

    Raises:
        ClusterUnavailable: too few nodes are online.
        OutOfSpace: staging or too many nodes have no room for the body in addition to what is promised to other
            uploads.
        StagingUnavailable: staging is missing or cannot be written to.
    """
    try:
        _require(_recent_room(Topology.recent()), size, factor)
    except (ClusterUnavailable, OutOfSpace):
        _require(_room.keep(lambda: _look_for_room(Topology.load())), size, factor)


def staging_lack() -> str:
    """The reason why staging cannot take any upload now, in words; empty if it can."""
    try:
        lack = staging_space().lacks(files=1)
    except StagingUnavailable as error:
        return str(error)
    return f"staging has no {LACKING[lack]}" if lack else ""


def staging_space() -> Space:
    """The room on the file system of staging.

    Raises:
        StagingUnavailable: the staging directory is missing, or cannot be written to.
    """
    folder = configuration().staging_dir
    try:
        statistics, device = os.statvfs(folder), folder.stat().st_dev
    except OSError as error:
        raise StagingUnavailable(f"the staging folder cannot be used: {error.strerror}") from error
    # ``os.access`` checks the rights of the effective user here. On a file system that is mounted read-only,
    # ``os.access`` returns False, even for root.
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise StagingUnavailable("the staging folder cannot be written to: its rights or its file system forbid it")
    return Space.of(statistics, str(device), writable=True)


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
    """The bytes and files that uploads take on the nodes. Each copy of a chunk is one file."""

    size: int
    files: int


@dataclass(frozen=True)
class Room:
    """The result of a look at the room on all nodes.

    Attributes:
        topology: the nodes that were asked.
        online: number of nodes whose replicas count.
        staging: the room in staging.
        spaces: file system → its room; file systems of full nodes are included.
        nodes: file system → number of nodes on it that accept replicas.
        silent: number of nodes that should accept replicas but did not answer.
        promised: the bytes and files that uploads under way will need.
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
    return _room.see(lambda: _look_for_room(topology), fits=lambda room: not _differs(topology, room.topology))


def _differs(now: Topology, then: Topology) -> bool:
    return now is not then and now.members != then.members


def _look_for_room(topology: Topology) -> Room:
    # The promised room is read before the volumes are asked. A replica that is written between the two readings counts
    # twice, as promised and as used space. If the volumes were asked first, a new replica might not count at all.
    promised = _promised()
    staging = staging_space()
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


def _promised() -> Needs:
    """The bytes and files that uploads under way have reserved. PostgreSQL adds them up.

    Each copy of an upload may end with a chunk shorter than ``piece_size``, so one file is added for each copy.
    """
    ((size, files),) = prepared.rows(
        """
        SELECT coalesce(sum(reserved), 0)::bigint, coalesce(sum(reserved / piece_size + replication_factor), 0)::bigint
          FROM storage_upload
        """,
        (),
    )
    return Needs(int(size), int(files))


class _Copies:
    """Distributes the copies of one upload over file systems; the nodes on one file system share its room."""

    def __init__(self, room: Room, promised: Needs, size: int) -> None:
        systems = max(1, len(+room.nodes))
        self._needs = Needs(size, chunk_count(size, configuration().chunk_size))
        self._nodes = room.nodes.copy()
        self._spaces = {
            device: space.less(promised.size // systems, promised.files // systems)
            for device, space in room.spaces.items()
        }

    def fitting(self, factor: int) -> int:
        """The number of copies, at most ``factor``, that find room."""
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
        """The resources of which at least one file system has too little for one more copy."""
        return {lack for device in self._spaces if (lack := self._lack(device))}

    def _lack(self, device: str) -> Lack:
        return self._spaces[device].lacks(self._needs.size, self._needs.files)
