"""What the sketches of the online nodes say about the whole cluster, each figure with its interval.

A survey is plain data: the larger ones are taken by a periodic task and kept as JSON until they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sketches.estimators import (
    Estimate,
    Spectrum,
    below_targets,
    spectrum_from_registers,
    spectrum_from_sums,
    union_estimate,
)
from sketches.estimators.membership import false_positive_rate
from sketches.estimators.null import ExpectedOverlap, fitted_overlap, simulated_overlap
from sketches.estimators.overlap import pairwise_overlaps
from sketches.lcrs import LCRS, level_counts
from sketches.store import trusted
from storage import placement
from storage.conf import configuration
from storage.models import Content
from storage.routing import store_of
from storage.topology import Member, Topology

LARGE = 100_000  # registers of all nodes together
NULL_SAMPLES = 1 << 14  # chunks that are placed to see what overlap zones make

Registers = NDArray[np.uint8]


@dataclass(frozen=True)
class Overlap:
    """Chunks on both of two nodes, node × node in the order of ``Survey.node_ids``; the diagonal is each node alone.

    Attributes:
        observed: estimated from the registers empty on both; None if too few are.
        expected: for healthy nodes that are as full as these, and as placement chooses them.
        z: standard score of the difference; among healthy nodes less than 1 % of the pairs lie beyond 3.
    """

    observed: list[list[float | None]]
    expected: list[list[float]]
    z: list[list[float]]


@dataclass(frozen=True)
class Survey:
    """What the online nodes' sketches say at one moment.

    Attributes:
        node_ids: the online nodes; the others' sketches are left out.
        n_prime: N', registers of the smallest of the sketches, to which the others were folded.
        level_counts: number of registers at each level.
        unions: distinct chunks on each node.
        union: distinct chunks on all of them.
        spectrum: chunks with exactly 1, 2, … replicas; the last class has that many or more.
        average_replication: replicas per chunk, up to the largest target.
        below_target: chunks with fewer replicas than they should have; under several targets a lower bound.
        load: chunks per register, the union's.
        false_positive_rate: predicted: that the register of a chunk which a node does not hold is not zero.
        overlap: None when registers are too full to expect anything.
        trusted: whether every one of these sketches is.
    """

    node_ids: list[str]
    n_prime: int
    level_counts: list[int]
    unions: list[Estimate]
    union: Estimate
    spectrum: list[Estimate]
    average_replication: Estimate
    below_target: Estimate
    load: float
    false_positive_rate: float
    overlap: Overlap | None
    trusted: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The survey that ``as_json`` was called on."""
        single = {name: Estimate(**document[name]) for name in ("union", "average_replication", "below_target")}
        several = {name: [Estimate(**one) for one in document[name]] for name in ("unions", "spectrum")}
        overlap = Overlap(**document["overlap"]) if document["overlap"] else None
        return cls(**{**document, **single, **several, "overlap": overlap})


def is_large(topology: Topology) -> bool:
    """Whether a survey takes longer than a request should wait for it."""
    zoned = any(member.zone for member in topology.online)
    return zoned or len(topology.online) * topology.cluster.n_prime > LARGE


def survey(topology: Topology) -> Survey | None:
    """Read the online nodes' sketches; None while one of them is missing and being rebuilt.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    online = topology.online
    snapshot = store_of(topology.cluster).snapshot([member.node_id for member in online])
    if any(member.node_id not in snapshot.sketches for member in online):
        return None
    sketches = [snapshot.sketches[member.node_id] for member in online]
    registers = _lined_up(sketches, topology.cluster.n_prime)
    n_prime = registers.shape[1]
    tau = topology.cluster.tau
    targets = _targets()
    spectrum = spectrum_from_registers(registers, len(targets) - 1)
    unions = [union_estimate(int(np.count_nonzero(row == 0)), n_prime) for row in registers]
    held = [union.estimate for union in unions]
    return Survey(
        node_ids=[member.node_id for member in online],
        n_prime=n_prime,
        level_counts=[int(count) for count in level_counts(sketches, tau)] if sketches else [n_prime],
        unions=unions,
        union=spectrum.union,
        spectrum=list(spectrum.classes),
        average_replication=spectrum.average,
        below_target=below_targets(spectrum, targets),
        load=spectrum.union.estimate / n_prime,
        false_positive_rate=float(false_positive_rate(np.array(held), n_prime).mean()) if held else 0.0,
        overlap=_overlap(registers, tau, spectrum, online),
        trusted=all(trusted(snapshot.headers[m.node_id], m.sketch_epoch, snapshot.run_id) for m in online),
    )


class Drawing:
    """Sketches of a state that is only planned, in memory: what a survey would see of it.

    Args:
        topology: the nodes; those online have a sketch.
    """

    def __init__(self, topology: Topology) -> None:
        cluster = topology.cluster
        self._online = topology.online
        self._tau = cluster.tau
        self._n_prime = cluster.n_prime
        self._sketches = {
            member.node_id: LCRS(cluster.n_prime, cluster.tau, cluster.sketch_seed) for member in self._online
        }

    def add(self, planned: Mapping[str, Sequence[str]]) -> None:
        """Count chunks: node id → chunk hashes; nodes without a sketch are left out."""
        for node_id, chunk_hashes in planned.items():
            if node_id in self._sketches:
                self._sketches[node_id].add(chunk_hashes)

    def overlap(self) -> Overlap | None:
        """What every two nodes would have in common; None where a survey could expect nothing."""
        registers = _lined_up(list(self._sketches.values()), self._n_prime)
        spectrum = spectrum_from_registers(registers, len(_targets()) - 1)
        return _overlap(registers, self._tau, spectrum, self._online)


def largest_z(overlap: Overlap | None) -> float | None:
    """The standard score farthest from 0 of all pairs of nodes, without its sign; None if nothing is known."""
    return max((abs(z) for row in overlap.z for z in row), default=None) if overlap else None


def _targets() -> NDArray[np.int64]:
    """How many chunks should have 0, 1, 2, … replicas; of a cluster without any, none at the default.

    A chunk of two contents counts in both: with several targets the lower bound that follows is on the safe side.
    """
    chunks = Content.chunks_by_target() or {configuration().replication_factor: 0}
    histogram = np.zeros(max(chunks) + 1, np.int64)
    histogram[list(chunks)] = list(chunks.values())
    return histogram


def _lined_up(sketches: Sequence[LCRS], n_prime: int) -> Registers:
    """The registers of all sketches, folded to the size of the smallest: ``[nodes, N']``."""
    smallest = min((sketch.n_prime for sketch in sketches), default=n_prime)
    folded = [sketch.fold(smallest).registers for sketch in sketches]
    return np.stack(folded) if folded else np.zeros((0, smallest), np.uint8)


def _overlap(registers: Registers, tau: int, spectrum: Spectrum, online: Sequence[Member]) -> Overlap | None:
    """Observed against expected; what is expected follows from the replica counts that the register sums tell."""
    if spectrum.saturated or len(online) < 2 or (registers == tau).any():
        return None
    counts = spectrum_from_sums(registers, tau, spectrum.replication_factor).counts
    replicas = {number: int(chunks) for number, chunks in enumerate(np.rint(counts.clip(0)), 1) if chunks >= 1}
    observed = pairwise_overlaps(registers)
    expected = _expected(replicas, registers.sum(axis=1, dtype=np.int64), online)
    return Overlap(
        [
            [None if full else chunks for chunks, full in zip(row, flags, strict=True)]
            for row, flags in zip(_rounded(observed.intersection, 1), observed.saturated.tolist(), strict=True)
        ],
        _rounded(expected.mean, 1),
        _rounded(expected.scores(observed), 2),
    )


def _rounded(matrix: NDArray[np.float64], digits: int) -> list[list[float]]:
    rows: list[list[float]] = (matrix.round(digits) + 0.0).tolist()  # without -0.0
    return rows


def _expected(replicas: Mapping[int, int], held: NDArray[np.int64], online: Sequence[Member]) -> ExpectedOverlap:
    if not any(member.zone for member in online):
        return fitted_overlap(dict(replicas), held)
    candidates = [member.candidate for member in online]
    drawn = np.random.default_rng(0)  # the same samples each time: the null must not jitter

    def rank(chunks: int) -> NDArray[np.intp]:
        prefixes = drawn.bytes(8 * chunks).hex()
        return placement.rank([prefixes[16 * i : 16 * (i + 1)] for i in range(chunks)], candidates)

    return simulated_overlap(dict(replicas), rank, NULL_SAMPLES)
