"""A survey: what the sketches of the online nodes say at one moment, as plain data.

The larger ones are taken by a periodic task and kept as JSON until they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from sketches.estimators import Estimate, below_targets, spectrum_from_registers, union_estimate
from sketches.estimators.membership import false_positive_rate
from sketches.lcrs import level_counts
from sketches.store import trusted
from storage.cluster.topology import Topology
from storage.tracking import history
from storage.tracking.store import store_of
from storage.tracking.surveying.gathering import Gathering, gatherings
from storage.tracking.surveying.overlaps import Overlap, overlap_of, replicas_of
from storage.tracking.surveying.targets import leaving, lined_up, targets, under_ingest

LARGE = 100_000  # registers of all nodes together
TIMES_EXPECTED = 1.25  # Among many chunks chance explains little: a smaller excess does no harm.


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
        below_target: chunks with fewer replicas than they should have, condemned ones included as long as their copies
            are there; under several targets a lower bound. Chunks that may have any number of copies are left out.
        load: chunks per register, the union's.
        false_positive_rate: predicted: that the register of a chunk which a node does not hold is not zero.
        overlap: None when registers are too full to expect anything.
        gatherings: the sets of nodes with which most chunks would be lost.
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
    gatherings: list[Gathering]
    trusted: bool

    @property
    def overlapping(self) -> list[tuple[str, str]]:
        """The pairs of nodes that have more in common than placement and chance explain, the worst one first."""
        overlap = self.overlap
        if overlap is None:
            return []
        pairs = [
            (overlap.z[row][column], row, column)
            for row in range(len(self.node_ids))
            for column in range(row)
            if overlap.z[row][column] > overlap.bound
            and (overlap.observed[row][column] or 0.0) > TIMES_EXPECTED * overlap.expected[row][column]
        ]
        return [(self.node_ids[column], self.node_ids[row]) for _, row, column in sorted(pairs, reverse=True)]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The survey that ``as_json`` was called on."""
        single = {name: Estimate(**document[name]) for name in ("union", "average_replication", "below_target")}
        several = {name: [Estimate(**one) for one in document[name]] for name in ("unions", "spectrum")}
        overlap = Overlap(**document["overlap"]) if document["overlap"] else None
        gathered = [Gathering(**{**one, "chunks": Estimate(**one["chunks"])}) for one in document["gatherings"]]
        return cls(**{**document, **single, **several, "overlap": overlap, "gatherings": gathered})


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
    without_target = leaving()
    snapshot = store_of(topology.cluster).snapshot([member.node_id for member in online])
    if any(member.node_id not in snapshot.sketches for member in online):
        return None
    sketches = [snapshot.sketches[member.node_id] for member in online]
    registers = lined_up(sketches, topology.cluster.n_prime)
    n_prime = registers.shape[1]
    tau = topology.cluster.tau
    wanted = targets()
    spectrum = spectrum_from_registers(registers, len(wanted) - 1)
    replicas = replicas_of(registers, tau, spectrum)
    spans = history.spans(topology)
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
        below_target=_without(below_targets(spectrum, wanted), without_target + under_ingest()),
        load=spectrum.union.estimate / n_prime,
        false_positive_rate=float(false_positive_rate(np.array(held), n_prime).mean()) if held else 0.0,
        overlap=None if replicas is None else overlap_of(registers, replicas, online, spans),
        gatherings=gatherings(
            registers,
            replicas,
            online,
            spans,
            everybody_counts=all(member.counts for member in topology.members),
        ),
        trusted=all(trusted(snapshot.headers[m.node_id], m.sketch_epoch, snapshot.run_id) for m in online),
    )


def _without(found: Estimate, chunks: int) -> Estimate:
    """The estimate when so many chunks that may be among those counted are none of its business."""
    lower = max(found.lower_bound - chunks, 0.0)
    return Estimate(max(found.estimate - chunks, lower), lower, found.upper_bound, found.saturated)
