"""Compare copies with targets: list a range of hashes on every node, and merge the lists with PostgreSQL (RACES 17)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from storage.cluster.topology import Member, Topology
from storage.exceptions import VolumeError
from storage.models import Chunk
from storage.replicas.finding import ASKED_CHUNKS, ask
from storage.volumes import Replica, Volume

FEW, MANY = 16, 256
"""The number of ranges of hashes: by the first hex digit in a small store, by the first two in a large one."""

SMALL = 256  # A store is small if the range of the digits 00 has at most this many chunks, so about 65,000 in all.


@dataclass
class Entry:
    """One chunk that PostgreSQL knows.

    Attributes:
        size: the size of the chunk in bytes.
        target: the number of replicas wanted; 0 if nothing refers to the chunk.
        holders: nodes with a copy of the right size.
        misfits: nodes with a copy of another size, which is corrupt.
        in_flight: True if an upload still pins the chunk, or nothing refers to it any more; see ``look_again``.
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
        """The number of missing copies."""
        return 0 if self.in_flight else max(0, self.target - len(self.counting))

    @property
    def is_lost(self) -> bool:
        """True if the chunk should have copies, and the nodes that could be listed have none."""
        return bool(self.target and not self.holders and not self.in_flight)

    @property
    def surplus(self) -> int:
        """The number of copies above the target; 0 for a chunk that nothing refers to, because it waits for reclaim."""
        return max(0, len(self.counting) - self.target) if self.target else 0


@dataclass(frozen=True)
class Census:
    """The copies that one range of hashes has, and the copies that it should have.

    Attributes:
        prefix: the hex digits that the hashes of the range begin with.
        entries: chunk hash → the chunk's entry, for the chunks that PostgreSQL knows.
        orphans: chunk hash → copies as (node, size in bytes), for the chunks that PostgreSQL does not know.
        silent: nodes that could not be listed, so that their copies are missing in ``entries`` and ``orphans``.
        copies: node id → number of all copies listed on the node, orphans and misfits included.
        stored: node id → number of bytes that the copies of known chunks take on the node.
    """

    prefix: str
    entries: dict[str, Entry]
    orphans: dict[str, list[tuple[Member, int]]]
    silent: list[Member]
    copies: dict[str, int]
    stored: dict[str, int]

    def listed(self, member: Member) -> int:
        """The number of copies that were listed on a node."""
        return self.copies.get(member.node_id, 0)

    @property
    def lost(self) -> list[str]:
        """The hashes of the chunks without a copy on any node; empty if a node is silent, because a silent node may
        have copies.
        """
        if self.silent:
            return []
        return sorted(chunk_hash for chunk_hash, entry in self.entries.items() if entry.is_lost)


def prefixes(topology: Topology, number: int = 0) -> list[str]:
    """The hex digits that the hashes of each range begin with, in their order.

    Args:
        topology: the nodes.
        number: the number of ranges, which a job keeps in all its turns; 0 lists one range to find out how large the
            store is. The volumes are asked too, because PostgreSQL may know less than the volumes hold.
    """
    if not number:
        sample = take(topology, "00")
        number = FEW if len(sample.entries) + len(sample.orphans) <= SMALL else MANY
    digits = 1 if number == FEW else 2
    return [f"{step:0{digits}x}" for step in range(number)]


def take(topology: Topology, prefix: str) -> Census:
    """List a range on all nodes in parallel, then read the range's chunks from PostgreSQL.

    The order matters. A chunk gets its row before it is written, so a listed copy without a row is an orphan. A copy
    that is written between the listing and the read looks as if it were missing, so a caller that acts on missing
    copies asks the volumes again with ``look_again``.

    Args:
        topology: the nodes.
        prefix: hex digits that the hashes begin with.
    """
    listed, silent = _list(topology, prefix)
    entries = {chunk.chunk_hash: Entry(chunk.size, chunk.target) for chunk in Chunk.objects.wanted(prefix)}
    orphans: dict[str, list[tuple[Member, int]]] = defaultdict(list)
    stored = dict.fromkeys((member.node_id for member, _ in listed), 0)
    for member, replicas in listed:
        for replica in replicas:
            entry = entries.get(replica.chunk_hash)
            if entry is None:
                orphans[replica.chunk_hash].append((member, replica.size))
            else:
                (entry.holders if replica.size == entry.size else entry.misfits).append(member)
                stored[member.node_id] += replica.stored
    copies = {member.node_id: len(replicas) for member, replicas in listed}
    return Census(prefix, entries, dict(orphans), silent, copies, stored)


def look_again(topology: Topology, listing: Census) -> None:
    """Ask the volumes once more for the chunks that seemed short: copies that were just being written are there by now.

    A chunk that an upload still pins, or that nothing refers to any more, is marked ``in_flight`` and not short: no
    maintenance job should make copies of it.
    """
    short = [chunk_hash for chunk_hash, entry in listing.entries.items() if entry.short]
    for start in range(0, len(short), ASKED_CHUNKS):
        batch = short[start : start + ASKED_CHUNKS]
        targets = {chunk.chunk_hash: chunk.target for chunk in Chunk.objects.settled_among(batch)}
        answers = ask(topology, {chunk_hash: listing.entries[chunk_hash].size for chunk_hash in batch})
        for chunk_hash in batch:
            entry = listing.entries[chunk_hash]
            entry.in_flight = chunk_hash not in targets
            entry.target = targets.get(chunk_hash, entry.target)
            entry.holders[:] = [*answers.holders[chunk_hash], *(m for m in entry.holders if m in answers.silent)]


def _list(topology: Topology, prefix: str) -> tuple[list[tuple[Member, list[Replica]]], list[Member]]:
    calls, listed, silent = [], [], []
    for member in topology.members:
        try:
            calls.append((member, member.lane.submit(_replicas, member.lane.volume, prefix)))
        except VolumeError:
            silent.append(member)
    for member, future in calls:
        try:
            listed.append((member, member.lane.result(future)))
        except VolumeError:
            silent.append(member)
    return listed, silent


def _replicas(volume: Volume, prefix: str) -> list[Replica]:
    """List the replicas of a range; runs in the volume's lane."""
    return list(volume.replicas(prefix))
