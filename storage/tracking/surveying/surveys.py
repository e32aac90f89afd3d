"""A survey: what the sketches of the online nodes say at one moment, as plain data.

A periodic task takes the surveys that last too long for a request, and keeps them as JSON for the requests that show
them.
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

LARGE = 100_000  # A survey of more registers, of all nodes together, is large.
# In a cluster with many chunks, chance does not explain even a small excess. An overlap up to this multiple of the
# expected overlap does no harm.
TIMES_EXPECTED = 1.25


@dataclass(frozen=True)
class Survey:
    """What the online nodes' sketches say at one moment.

    Attributes:
        node_ids: the online nodes; the sketches of other nodes are left out.
        n_prime: N', the number of registers of the smallest sketch; larger sketches were folded to this size.
        level_counts: number of registers at each level.
        unions: distinct chunks on each node.
        union: distinct chunks on all nodes together.
        spectrum: chunks with exactly 1, 2, … replicas; the last class also has the chunks with more replicas.
        average_replication: replicas per chunk. Replicas of a chunk beyond the largest target are not counted.
        below_target: chunks with fewer replicas than they should have; a lower bound if there are several targets.
            Condemned chunks count as long as their copies are there. Chunks that may have any number of copies are
            left out.
        load: distinct chunks of the union per register.
        false_positive_rate: the predicted probability that a register is not zero for a chunk that its node does not
            hold.
        overlap: the number of chunks that every two nodes share; None if the registers are too full to say what to
            expect.
        gatherings: the sets of nodes with which most chunks would be lost.
        trusted: True if the sketches of all online nodes are trusted.
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
        """The pairs of nodes that share more chunks than placement and chance explain, the worst pair first."""
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
        """Make the survey again from the result of ``as_json``."""
        single = {name: Estimate(**document[name]) for name in ("union", "average_replication", "below_target")}
        several = {name: [Estimate(**one) for one in document[name]] for name in ("unions", "spectrum")}
        overlap = Overlap(**document["overlap"]) if document["overlap"] else None
        gathered = [Gathering(**{**one, "chunks": Estimate(**one["chunks"])}) for one in document["gatherings"]]
        return cls(**{**document, **single, **several, "overlap": overlap, "gatherings": gathered})


def is_large(topology: Topology) -> bool:
    """Tell whether a survey takes longer than a request should wait for it."""
    zoned = any(member.zone for member in topology.online)
    return zoned or len(topology.online) * topology.cluster.n_prime > LARGE


def survey(topology: Topology) -> Survey | None:
    """Read the sketches of the online nodes; returns None while a sketch is missing and is rebuilt.

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
    chunks = [union.estimate for union in unions]
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
        false_positive_rate=float(false_positive_rate(np.array(chunks), n_prime).mean()) if chunks else 0.0,
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


def _without(estimate: Estimate, chunks: int) -> Estimate:
    """Subtract ``chunks``, which an estimate may count and should not. The upper bound of the estimate stays."""
    lower = max(estimate.lower_bound - chunks, 0.0)
    return Estimate(max(estimate.estimate - chunks, lower), lower, estimate.upper_bound, estimate.saturated)
