"""Blast radius: the sets of nodes that hold all copies of some chunks. A chunk is lost if all nodes of a set that holds
all its copies are lost.

Placement spreads copies, so that only few chunks lie on any one set of nodes. A set may hold more chunks than placement
explains, for example after copies were moved without regard to placement. A rebalance spreads copies that lie together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

import numpy as np

from sketches.estimators import Estimate
from sketches.estimators.blast import LARGEST_SET, blast_radius, confinement_scores, expected_confined, worst_sets
from sketches.estimators.discrete import score_bound
from sketches.estimators.epochs import Epoch, fitted_history
from storage.cluster.topology import Member
from storage.tracking.history import Span
from storage.tracking.surveying.overlaps import NULL_SAMPLES, Registers, epochs_of, placed_at_random

# A gathering that lasts this long is reported. Uploads and repairs also make gatherings, but those end before this
# time.
GATHERED_FOR = timedelta(hours=1)
SIZES = (2, 3)  # The sets that are searched have these numbers of nodes.
SHOWN = 3  # This many of the worst sets of each size are shown.
TIMES = 2.0  # A set is a finding if it holds more than this multiple of the expected chunks, beyond chance.


Nodes: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Gathering:
    """Chunks that would be lost with a set of nodes.

    Attributes:
        node_ids: the nodes.
        zone: the zone, if the nodes are all nodes of one zone; otherwise empty.
        chunks: the number of chunks that have all their copies on these nodes.
        expected: the number that ``chunks`` has on average if placement is healthy; None if it is not known, for
            example while a node is away.
        score: standard score of the difference between ``chunks`` and ``expected``.
        bound: in one healthy survey of a hundred, the largest score of all sets of this size exceeds this bound.
    """

    node_ids: list[str]
    zone: str
    chunks: Estimate
    expected: float | None
    score: float | None
    bound: float

    @property
    def is_out_of_bounds(self) -> bool:
        """True if more chunks lie on these nodes alone than placement and chance explain.

        If less than one chunk is expected, as for three replicas on two nodes, the chunks found there lack copies: this
        is no gathering.
        """
        if self.expected is None or self.score is None or self.expected < 1:
            return False
        return self.score > self.bound and self.chunks.estimate > TIMES * self.expected


def gatherings(
    registers: Registers,
    replicas: Mapping[int, int] | None,
    online: Sequence[Member],
    spans: Sequence[Span],
    *,
    everybody_counts: bool,
) -> list[Gathering]:
    """The worst pairs, the worst triples, and each zone.

    Args:
        registers: the sketches of the online nodes, shape ``[m, N']``.
        replicas: number of replicas → number of chunks; None if it is not known.
        online: the m online nodes, in the order of the registers.
        spans: the cluster's history.
        everybody_counts: True if no node is away or being drained, so that copies should be where placement puts them.
    """
    sets: list[tuple[Nodes, str, Estimate]] = []
    for size in SIZES:
        if size < len(online):
            sets += [(nodes, "", chunks) for nodes, chunks in worst_sets(registers, size, SHOWN)]
    for zone in sorted({member.zone for member in online if member.zone}):
        nodes = tuple(column for column, member in enumerate(online) if member.zone == zone)
        if len(nodes) < len(online):
            sets.append((nodes, zone, blast_radius(registers, nodes)))
    expect = _expectation(registers, replicas, online, spans) if replicas is not None and everybody_counts else None
    return [
        Gathering(
            [online[node].node_id for node in nodes],
            zone,
            chunks,
            None if expected is None else round(expected, 1),
            None if expected is None else round(_score(registers, nodes, expected), 2),
            round(score_bound(1 if zone else math.comb(len(online), len(nodes))), 2),
        )
        for nodes, zone, chunks in sets
        for expected in [expect(nodes) if expect else None]
    ]


def _score(registers: Registers, nodes: Nodes, expected: float) -> float:
    return float(confinement_scores(registers, [nodes], np.array([expected]))[0])


def _expectation(
    registers: Registers, replicas: Mapping[int, int], online: Sequence[Member], spans: Sequence[Span]
) -> Callable[[Nodes], float | None]:
    """A function: set of nodes → number of chunks that placement puts on these nodes only; None if unknown."""
    epochs = epochs_of(replicas, spans, [member.node_id for member in online])
    if any(member.zone for member in online):
        return lambda nodes: sum(_expected_in_zones(nodes, epoch, online) for epoch in epochs if epoch.nodes)
    history = fitted_history(epochs, registers.sum(axis=1, dtype=np.int64))
    return lambda nodes: float(expected_confined(history, [nodes])[0]) if len(nodes) <= LARGEST_SET else None


def _expected_in_zones(nodes: Nodes, epoch: Epoch, online: Sequence[Member]) -> float:
    """The number of chunks of an epoch (see ``epochs_of``) that placement puts on ``nodes`` alone, by simulation."""
    order = placed_at_random([online[node] for node in epoch.nodes])(NULL_SAMPLES)
    inside = np.isin(np.array(epoch.nodes)[order], nodes)
    return float(sum(chunks * inside[:, :number].all(axis=1).mean() for number, chunks in epoch.replicas.items()))
