"""Blast radius: the sets of nodes that hold all copies of chunks, which would be lost with them.

Placement spreads copies, so that only few chunks lie on any one set of nodes. More than that, as after copies were
moved by another rule, is what a rebalance mends.
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

GATHERED_FOR = timedelta(hours=1)  # For less than this it is no trouble: uploads and repairs make passing patterns.
SIZES = (2, 3)  # Sets of so many nodes are looked for.
SHOWN = 3  # The worst sets of each size are shown.
TIMES = 2.0  # A set that holds more than so many times what it should is a finding, if chance does not explain it.


Nodes: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Gathering:
    """Chunks that would be lost with a set of nodes.

    Attributes:
        node_ids: the nodes.
        zone: the zone that they are, if they are all nodes of one.
        chunks: those all of whose copies lie on these nodes.
        expected: how many of them a healthy placement would have put there; None if that is not known, as while a node
            is away.
        score: standard score of the difference.
        bound: the largest score of all sets of this size exceeds it in one healthy survey of a hundred.
    """

    node_ids: list[str]
    zone: str
    chunks: Estimate
    expected: float | None
    score: float | None
    bound: float

    @property
    def is_out_of_bounds(self) -> bool:
        """Whether more chunks lie here than placement and chance explain.

        Where next to none should lie, as of three replicas on two nodes, the chunks there lack copies: that is no
        gathering.
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
        registers: of the online nodes, ``[m, N']``.
        replicas: number of replicas → chunks; None if it is not known.
        online: the nodes, in the order of the registers.
        spans: the cluster's history.
        everybody_counts: no node is away or being drained, so that copies should be where placement puts them.
    """
    found: list[tuple[Nodes, str, Estimate]] = []
    for size in SIZES:
        if size < len(online):
            found += [(nodes, "", chunks) for nodes, chunks in worst_sets(registers, size, SHOWN)]
    for zone in sorted({member.zone for member in online if member.zone}):
        nodes = tuple(column for column, member in enumerate(online) if member.zone == zone)
        if len(nodes) < len(online):
            found.append((nodes, zone, blast_radius(registers, nodes)))
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
        for nodes, zone, chunks in found
        for expected in [expect(nodes) if expect else None]
    ]


def _score(registers: Registers, nodes: Nodes, expected: float) -> float:
    return float(confinement_scores(registers, [nodes], np.array([expected]))[0])


def _expectation(
    registers: Registers, replicas: Mapping[int, int], online: Sequence[Member], spans: Sequence[Span]
) -> Callable[[Nodes], float | None]:
    """Tells how many chunks placement would have put on a set of nodes alone; None if that is not known."""
    epochs = epochs_of(replicas, spans, [member.node_id for member in online])
    if any(member.zone for member in online):
        return lambda nodes: sum(_expected_in_zones(nodes, epoch, online) for epoch in epochs if epoch.nodes)
    history = fitted_history(epochs, registers.sum(axis=1, dtype=np.int64))
    return lambda nodes: float(expected_confined(history, [nodes])[0]) if len(nodes) <= LARGEST_SET else None


def _expected_in_zones(nodes: Nodes, epoch: Epoch, online: Sequence[Member]) -> float:
    """Of the chunks of an epoch, those whose first nodes are all among these: by placing some and counting."""
    order = placed_at_random([online[node] for node in epoch.nodes])(NULL_SAMPLES)
    inside = np.isin(np.array(epoch.nodes)[order], nodes)
    return float(sum(chunks * inside[:, :number].all(axis=1).mean() for number, chunks in epoch.replicas.items()))
