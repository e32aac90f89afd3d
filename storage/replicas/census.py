"""Who has what, and who should: a range of hashes, listed on every node and merged with PostgreSQL (RACES 17)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from storage.cluster.topology import Member, Topology
from storage.exceptions import VolumeError
from storage.models import Chunk
from storage.replicas.finding import ASKED_CHUNKS, ask
from storage.volumes import Replica, Volume

RANGES = 256
"""Ranges into which the hashes are divided, by their first two digits."""


@dataclass
class Entry:
    """One chunk that PostgreSQL knows.

    Attributes:
        size: in bytes.
        target: replicas wanted; 0 when nothing refers to it.
        holders: nodes with a copy of that size.
        misfits: nodes with a copy of another size: corrupt.
        in_flight: whether an upload has only just begun to store it, see ``look_again``.
    """

    size: int
    target: int
    holders: list[Member] = field(default_factory=list)
    misfits: list[Member] = field(default_factory=list)
    in_flight: bool = False

    @property
    def counting(self) -> list[Member]:
        """The holders whose copies count towards the target."""
        return [member for member in self.holders if member.counts]

    @property
    def short(self) -> int:
        """Copies that are missing."""
        return 0 if self.in_flight else max(0, self.target - len(self.counting))

    @property
    def is_lost(self) -> bool:
        """Whether there is no copy on the nodes that could be listed."""
        return bool(self.target and not self.holders and not self.in_flight)

    @property
    def surplus(self) -> int:
        """Copies too many; a chunk that nothing refers to is not surplus but waits for reclaim."""
        return max(0, len(self.counting) - self.target) if self.target else 0


@dataclass(frozen=True)
class Census:
    """What is and what should be, of one range.

    Attributes:
        prefix: the hex digits that its hashes begin with.
        entries: chunk hash → what is known of it.
        orphans: chunk hash → copies (node, bytes) of what PostgreSQL does not know.
        silent: nodes that could not be listed: what they hold is missing here.
        copies: node id → copies listed there, whatever they are of.
    """

    prefix: str
    entries: dict[str, Entry]
    orphans: dict[str, list[tuple[Member, int]]]
    silent: list[Member]
    copies: dict[str, int]

    def listed(self, member: Member) -> int:
        """Copies that were listed on a node."""
        return self.copies.get(member.node_id, 0)

    @property
    def lost(self) -> list[str]:
        """Chunks without a copy on any node: none can be told while a node is silent."""
        if self.silent:
            return []
        return sorted(chunk_hash for chunk_hash, entry in self.entries.items() if entry.is_lost)


def prefix_of(step: int) -> str:
    """The hex digits that the hashes of a range begin with."""
    return f"{step:02x}"


def take(topology: Topology, prefix: str) -> Census:
    """List a range on all nodes side by side, then read what PostgreSQL says of it.

    In this order: a chunk has its row before it is written, so that what was listed and has no row is an orphan. A copy
    that is written in between looks as if it were missing; who acts on it asks the volumes again.

    Args:
        topology: the nodes.
        prefix: hex digits that the hashes begin with.
    """
    listed, silent = _list(topology, prefix)
    entries = {found.chunk_hash: Entry(found.size, found.target) for found in Chunk.objects.wanted(prefix)}
    orphans: dict[str, list[tuple[Member, int]]] = defaultdict(list)
    for member, replicas in listed:
        for replica in replicas:
            entry = entries.get(replica.chunk_hash)
            if entry is None:
                orphans[replica.chunk_hash].append((member, replica.size))
            else:
                (entry.holders if replica.size == entry.size else entry.misfits).append(member)
    copies = {member.node_id: len(replicas) for member, replicas in listed}
    return Census(prefix, entries, dict(orphans), silent, copies)


def look_again(topology: Topology, taken: Census) -> None:
    """Ask the volumes once more for what seemed to lack copies: what was just being written is there by now.

    A chunk that an upload still pins, or that nothing refers to any more, lacks nothing that anybody should make.
    """
    short = [chunk_hash for chunk_hash, entry in taken.entries.items() if entry.short]
    for start in range(0, len(short), ASKED_CHUNKS):
        batch = short[start : start + ASKED_CHUNKS]
        wanted = {chunk.chunk_hash: chunk.target for chunk in Chunk.objects.settled_among(batch)}
        asked = ask(topology, {chunk_hash: taken.entries[chunk_hash].size for chunk_hash in batch})
        for chunk_hash in batch:
            entry = taken.entries[chunk_hash]
            entry.in_flight = chunk_hash not in wanted
            entry.target = wanted.get(chunk_hash, entry.target)
            entry.holders[:] = [*asked.holders[chunk_hash], *(m for m in entry.holders if m in asked.silent)]


def _list(topology: Topology, prefix: str) -> tuple[list[tuple[Member, list[Replica]]], list[Member]]:
    asked, listed, silent = [], [], []
    for member in topology.members:
        try:
            asked.append((member, member.lane.submit(_replicas, member.lane.volume, prefix)))
        except VolumeError:
            silent.append(member)
    for member, future in asked:
        try:
            listed.append((member, member.lane.result(future)))
        except VolumeError:
            silent.append(member)
    return listed, silent


def _replicas(volume: Volume, prefix: str) -> list[Replica]:
    """Runs in the volume's lane."""
    return list(volume.replicas(prefix))
