"""Proofs, from the registers alone, that some chunk has too few copies. A proof asks no volume.

An estimate says how many chunks lack a copy. A proof says in which registers chunks lack copies; one pass over the
hashes of all chunks on record then finds these chunks. All chunks of a register at level l lie on the same l nodes or
fewer. If each chunk of the register should have more than l copies, a level l above 0 proves that at least one of these
chunks has too few. The proof needs trusted sketches of all nodes. A register that counts a copy that does not exist can
hide a loss, but cannot invent one.

A chunk is *settled* if all its copies should be there now. ``Chunk.objects.unsettled`` returns the chunks that are not
settled.
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
"""Standard deviations between an estimate and its bound.

The estimate from the same set of chunks always has the same error. With a 95 % interval, one cluster in forty would
therefore have a false alarm that never ends."""

UNKNOWN = np.iinfo(np.uint16).max
Mask = NDArray[np.bool_]


def smallest_target(topology: Topology) -> int:
    """The smallest target of all chunks, and at most the number of nodes; 0 if there is no chunk."""
    return min(min(Content.chunks_by_target(), default=0), len(topology.members))


def is_possible(topology: Topology) -> bool:
    """Tell whether copies count on every node. Copies on a node where they do not count look like missing copies."""
    return bool(topology.members) and all(member.counts for member in topology.members)


def is_suspect(survey: Survey, target: int, chunks: int) -> bool:
    """Tell whether a survey is a reason to call ``look``. A survey includes unsettled chunks; ``look`` leaves them out.

    Args:
        survey: a survey of all nodes.
        target: the smallest target of all chunks.
        chunks: the number of chunks on record.
    """
    return proven_below(survey.level_counts, len(survey.node_ids), target) > 0 or _lost(survey.union, chunks) > 0


@dataclass(frozen=True, eq=False)
class Levels:
    """The level and the sum of each register, from trusted sketches of all nodes that were read at one instant.

    Attributes:
        levels: number of nodes on which each register is not zero, shape ``[N']``.
        sums: each register's sum over all nodes, which is the number of copies of its chunks, shape ``[N']``;
            ``UNKNOWN`` if the register is saturated on a node.
        seed: the cluster's sketch seed.
    """

    levels: NDArray[np.unsignedinteger]
    sums: NDArray[np.uint16]
    seed: int

    @property
    def n_prime(self) -> int:
        """Number of registers N'."""
        return len(self.levels)

    def below(self, target: int) -> Mask:
        """The registers at levels from 1 to ``target`` - 1, shape ``[N']``: each proves that a chunk lacks copies."""
        return (self.levels > 0) & (self.levels < target)

    def without_copies(self, chunks: NDArray[np.uint16], target: int) -> Mask:
        """The registers that count fewer copies than their chunks should have, shape ``[N']``.

        This method compares sums of registers, and so finds every lack that registers can show. The level alone shows
        nothing if a chunk that has all its copies shares the register. At a load of 0.25, one chunk in five shares its
        register with another chunk.

        Args:
            chunks: number of settled chunks on record in each register, shape ``[N']``.
            target: the number of copies that each chunk should have at least.
        """
        low = np.zeros(self.n_prime, np.bool_)
        used = np.flatnonzero(chunks != 0)
        low[used] = (self.sums[used] < chunks[used].astype(np.uint32) * target) | (self.levels[used] < target)
        return low

    def registers(self, digests: bytes) -> NDArray[np.int64]:
        """The register of each chunk, shape ``[n]``; ``digests`` holds n SHA-256 of 32 bytes, one after the other."""
        return registers_of(hash_digests(digests, self.seed), self.n_prime)

    def lost(self, unsettled: Unsettled) -> float:
        """A lower bound for the number of settled chunks that no register counts."""
        occupied = int(np.count_nonzero(self.levels))
        settled = unsettled.chunks - len(_distinct(unsettled.digests))
        return _lost(union_estimate(self.n_prime - occupied, self.n_prime), settled)


def read_levels(topology: Topology) -> Levels | None:
    """Read the sketches of all nodes; None if a sketch is missing or not trusted, or if copies on a node do not count.

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
    """Evidence that chunks lack copies; unsettled chunks are left out of it.

    Attributes:
        target: the smallest target of all chunks.
        n_prime: N', the number of registers of each sketch.
        low: the registers that prove a chunk with fewer copies than ``target``, in ascending order.
        lost: a lower bound for the number of chunks that no register counts.
    """

    target: int
    n_prime: int
    low: NDArray[np.uint32]
    lost: float

    def and_of(self, before: Evidence) -> Evidence:
        """The evidence that is in both this object and ``before``; empty if the sketches grew after ``before``."""
        if self.n_prime != before.n_prime:
            return Evidence(self.target, self.n_prime, self.low[:0], 0.0)
        low = np.intersect1d(self.low, before.low, assume_unique=True)
        return Evidence(self.target, self.n_prime, low, min(self.lost, before.lost))


def find(topology: Topology) -> Evidence | None:
    """Return the evidence that ``look`` finds; None if nothing can be proven now (see ``read_levels``)."""
    looked = look(topology)
    return looked[0] if looked else None


def look(topology: Topology) -> tuple[Evidence, Levels] | None:
    """Return the evidence as ``find`` does, together with the levels that it was read from.

    The unsettled chunks are read before the sketches and again after them. A chunk that is in neither reading was
    settled all the time, or was unsettled only between the two readings. If the chunk was unsettled between the
    readings, the sketches may show only some of its copies. A second call of ``look`` then finds the chunk with all its
    copies, or finds that it is gone.

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
    """The copies for which a trusted sketch has a zero register: node id → chunk hashes.

    Each zero register is a false negative, unless the copy was removed after it had been found.

    Args:
        topology: the nodes.
        holders: chunk hash → nodes on which a copy has been found.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    lookup = store_of(topology.cluster).lookup([member.node_id for member in topology.members], list(holders))
    copies: dict[str, list[str]] = {}
    for row, member in enumerate(topology.members):
        if trusted(lookup.headers[member.node_id], member.sketch_epoch, lookup.run_id):
            absent = zip(holders.items(), lookup.counts[row].tolist(), strict=True)
            missed = [chunk_hash for (chunk_hash, members), count in absent if not count and member in members]
            copies |= {member.node_id: missed} if missed else {}
    return copies


def occupants(topology: Topology, registers: Sequence[int], n_prime: int) -> list[str]:
    """The nodes on which at least one of ``registers`` is not zero; each number means a register of N' = ``n_prime``.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    sketches = store_of(topology.cluster).snapshot([member.node_id for member in topology.members]).sketches
    node_ids = []
    for node_id, sketch in sketches.items():
        occupied = np.unique(np.flatnonzero(sketch.registers) % n_prime)
        if np.isin(registers, occupied).any():
            node_ids.append(node_id)
    return node_ids


def registers_of_chunks(topology: Topology, chunk_hashes: Sequence[str], n_prime: int) -> NDArray[np.int64]:
    """The register of each chunk in sketches of N' = ``n_prime`` registers, shape ``[n]``."""
    return registers_of(hash_chunks(chunk_hashes, topology.cluster.sketch_seed), n_prime)


def leave_out(chunks: NDArray[np.uint16], levels: Levels, digests: bytes) -> None:
    """Subtract the chunks of ``digests`` from ``chunks``, the number of chunks of each register, in place.

    A chunk that is named twice is subtracted once.

    Args:
        chunks: number of chunks of each register, shape ``[N']``.
        levels: the levels, which tell the register of a chunk.
        digests: SHA-256 of the chunks, 32 bytes each.
    """
    places, times = np.unique(levels.registers(_distinct(digests).tobytes()), return_counts=True)
    chunks[places] -= np.minimum(chunks[places], times).astype(np.uint16)


def _lost(union: Estimate, chunks: int) -> float:
    if union.upper_bound is None:
        return 0.0
    upper = union.estimate + (union.upper_bound - union.estimate) * CERTAIN / Z_95
    return lost_chunks(Estimate(union.estimate, union.lower_bound, upper, union.saturated), chunks).lower_bound


def _distinct(digests: bytes) -> NDArray[np.void]:
    return np.unique(np.frombuffer(digests, f"V{DIGEST_SIZE}"))
