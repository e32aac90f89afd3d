"""What the registers prove: that some chunk has too few copies, without a look at any volume.

An estimate says how many chunks lack a copy, a proof says in which registers: from there to the chunks it is one pass
over the hashes on record (SKETCHES §4). All chunks of a register at level l lie on the same l nodes or fewer. So where
each of them should have more copies than that, a level above 0 proves that one has too few. It takes sketches that
are trusted, of all nodes; a register that counts what is not there hides a loss, but does not make one up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sketches.estimators.estimate import Z_95, Estimate
from sketches.estimators.redundancy import lost_chunks, proven_below
from sketches.estimators.union import union_estimate
from sketches.hashing import DIGEST_SIZE, hash_chunks, hash_digests, registers_of
from sketches.store import trusted
from storage.cluster.topology import Member, Topology
from storage.models import Chunk, Content
from storage.models.chunk import Unsettled
from storage.tracking.store import store_of
from storage.tracking.surveying import Survey

CERTAIN = 5.0
"""Standard deviations: what is said of one set of chunks is as wrong at each look as at the first one, so that 95 %
would be a false alarm for ever in one cluster of forty."""

UNKNOWN = np.iinfo(np.uint16).max
Mask = NDArray[np.bool_]


def smallest_target(topology: Topology) -> int:
    """Replicas that every chunk should have at least, as far as there are nodes; 0 if there is no chunk."""
    return min(min(Content.chunks_by_target(), default=0), len(topology.members))


def is_possible(topology: Topology) -> bool:
    """Whether copies count on every node: what lies on another one cannot be told from what is gone."""
    return bool(topology.members) and all(member.counts for member in topology.members)


def is_suspect(found: Survey, target: int, chunks: int) -> bool:
    """Whether a survey gives cause for a closer look, of which unsettled chunks may be the reason.

    Args:
        found: a survey of all nodes.
        target: the smallest.
        chunks: on record.
    """
    return proven_below(found.level_counts, len(found.node_ids), target) > 0 or _lost(found.union, chunks) > 0


@dataclass(frozen=True, eq=False)
class Levels:
    """The level of each register, and its sum, at one instant, of trusted sketches of all nodes.

    Attributes:
        levels: number of nodes on which each register is not zero, shape ``[N']``.
        sums: of each register over all nodes: copies of the chunks that it has; ``UNKNOWN`` if one is saturated.
        seed: the cluster's.
    """

    levels: NDArray[np.unsignedinteger]
    sums: NDArray[np.uint16]
    seed: int

    @property
    def n_prime(self) -> int:
        """Number of registers N'."""
        return len(self.levels)

    def below(self, target: int) -> Mask:
        """The registers that prove that a chunk lacks copies: at levels from 1 to less than ``target``."""
        return (self.levels > 0) & (self.levels < target)

    def without_copies(self, chunks: NDArray[np.uint16], target: int) -> Mask:
        """The registers whose chunks lack copies: fewer were counted than so many chunks should have.

        This misses nothing that counts tell. A level alone is silent where a chunk that has its copies shares the
        register, as one in five does at a load of a quarter.

        Args:
            chunks: settled chunks on record of each register.
            target: copies that each of them should have at least.
        """
        low = np.zeros(self.n_prime, np.bool_)
        used = np.flatnonzero(chunks != 0)
        low[used] = (self.sums[used] < chunks[used].astype(np.uint32) * target) | (self.levels[used] < target)
        return low

    def registers(self, digests: bytes) -> NDArray[np.int64]:
        """The registers of chunks, given by their SHA-256 one after the other."""
        return registers_of(hash_digests(digests, self.seed), self.n_prime)

    def lost(self, unsettled: Unsettled) -> float:
        """At least how many settled chunks have no trace on any node."""
        occupied = int(np.count_nonzero(self.levels))
        settled = unsettled.chunks - len(_distinct(unsettled.digests))
        return _lost(union_estimate(self.n_prime - occupied, self.n_prime), settled)


def read_levels(topology: Topology) -> Levels | None:
    """Read the sketches of all nodes; None if one of them is missing or not trusted, or a node's copies do not count.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    if not is_possible(topology):
        return None
    snapshot = store_of(topology.cluster).snapshot([member.node_id for member in topology.members])
    for member in topology.members:
        if not trusted(snapshot.headers[member.node_id], member.sketch_epoch, snapshot.run_id):
            return None
    sketches = list(snapshot.sketches.values())
    n_prime = min(sketch.n_prime for sketch in sketches)
    levels, sums = np.zeros(n_prime, np.min_scalar_type(len(sketches))), np.zeros(n_prime, np.uint16)
    saturated = np.zeros(n_prime, np.bool_)
    for sketch in sketches:
        parts = sketch.registers.reshape(-1, n_prime)
        levels += (parts != 0).any(axis=0)
        sums += parts.sum(axis=0, dtype=np.uint16) if len(parts) > 1 else parts[0]
        saturated |= (parts == sketch.tau).any(axis=0)
    sums[saturated] = UNKNOWN
    return Levels(levels, sums, topology.cluster.sketch_seed)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is wrong, past all that is merely unsettled.

    Attributes:
        target: the smallest target.
        n_prime: N', registers of the sketches.
        low: the registers that prove a chunk with fewer copies, in order.
        lost: at least so many chunks have no trace on any node.
    """

    target: int
    n_prime: int
    low: NDArray[np.uint32]
    lost: float

    def and_of(self, before: Evidence) -> Evidence:
        """What was wrong before, too; nothing, if the sketches have grown since then."""
        if self.n_prime != before.n_prime:
            return Evidence(self.target, self.n_prime, self.low[:0], 0.0)
        low = np.intersect1d(self.low, before.low, assume_unique=True)
        return Evidence(self.target, self.n_prime, low, min(self.lost, before.lost))


def find(topology: Topology) -> Evidence | None:
    """Look closely; None when nothing can be proven now, see ``read_levels``."""
    looked = look(topology)
    return looked[0] if looked else None


def look(topology: Topology) -> tuple[Evidence, Levels] | None:
    """As ``find``, with the levels that it is read from.

    What is unsettled is read before the sketches and after them. A chunk that is neither was whole before, or became
    so in the instant between; what of it was seen half done is whole, or gone, at a second look.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    target, before = smallest_target(topology), Chunk.objects.unsettled()
    levels = read_levels(topology)
    if levels is None:
        return None
    target, after = min(target, smallest_target(topology)), Chunk.objects.unsettled()
    low = levels.below(target)
    low[levels.registers(before.digests + after.digests)] = False
    return Evidence(target, levels.n_prime, np.flatnonzero(low).astype(np.uint32), levels.lost(before)), levels


def denied(topology: Topology, holders: Mapping[str, Sequence[Member]]) -> dict[str, list[str]]:
    """The copies that trusted sketches deny: node id → chunk hashes.

    Each is a false negative, unless the copy has gone since it was found.

    Args:
        topology: the nodes.
        holders: chunk hash → nodes on which a copy has been found.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    lookup = store_of(topology.cluster).lookup([member.node_id for member in topology.members], list(holders))
    found: dict[str, list[str]] = {}
    for row, member in enumerate(topology.members):
        if trusted(lookup.headers[member.node_id], member.sketch_epoch, lookup.run_id):
            absent = zip(holders.items(), lookup.counts[row].tolist(), strict=True)
            missed = [chunk_hash for (chunk_hash, held), count in absent if not count and member in held]
            found |= {member.node_id: missed} if missed else {}
    return found


def occupants(topology: Topology, registers: Sequence[int], n_prime: int) -> list[str]:
    """The nodes on which one of these registers, of sketches of N' registers, is not zero.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    sketches = store_of(topology.cluster).snapshot([member.node_id for member in topology.members]).sketches
    found = []
    for node_id, sketch in sketches.items():
        occupied = np.unique(np.flatnonzero(sketch.registers) % n_prime)
        if np.isin(registers, occupied).any():
            found.append(node_id)
    return found


def registers_of_chunks(topology: Topology, chunk_hashes: Sequence[str], n_prime: int) -> NDArray[np.int64]:
    """The registers that chunks have in sketches of N' registers."""
    return registers_of(hash_chunks(chunk_hashes, topology.cluster.sketch_seed), n_prime)


def leave_out(chunks: NDArray[np.uint16], levels: Levels, digests: bytes) -> None:
    """Take chunks, given by their SHA-256, off the numbers of chunks of each register."""
    places, times = np.unique(levels.registers(_distinct(digests).tobytes()), return_counts=True)
    chunks[places] -= np.minimum(chunks[places], times).astype(np.uint16)


def _lost(union: Estimate, chunks: int) -> float:
    if union.upper_bound is None:
        return 0.0
    upper = union.estimate + (union.upper_bound - union.estimate) * CERTAIN / Z_95
    return lost_chunks(Estimate(union.estimate, union.lower_bound, upper, union.saturated), chunks).lower_bound


def _distinct(digests: bytes) -> NDArray[np.void]:
    return np.unique(np.frombuffer(digests, f"V{DIGEST_SIZE}"))
