"""How many chunks every two nodes share, and how many they should share by the cluster's history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sketches.estimators import Spectrum, spectrum_from_sums
from sketches.estimators.discrete import score_bound
from sketches.estimators.epochs import Epoch
from sketches.estimators.null import ExpectedOverlap, epochs_overlap, simulated_overlap
from sketches.estimators.overlap import pairwise_overlaps
from storage.cluster import placement
from storage.cluster.topology import Member
from storage.tracking.history import Span

NULL_SAMPLES = 1 << 14  # This many random chunks are placed to estimate the overlap in a cluster with zones.

Registers: TypeAlias = NDArray[np.uint8]
Replicas: TypeAlias = Mapping[int, int]


@dataclass(frozen=True)
class Overlap:
    """The number of chunks that two nodes share, as matrices ``[m, m]`` in the order of ``Survey.node_ids``.

    The diagonal has the chunks of each node.

    Attributes:
        observed: estimated from the registers that are empty on both nodes; None if there are too few such registers.
        expected: the number of chunks that the two nodes would share on average in a healthy cluster with the same
            history, and with nodes that are as full as these nodes.
        z: standard score of the difference between ``observed`` and ``expected``.
        bound: in one healthy survey of a hundred, the largest score of all pairs of nodes exceeds this bound.
    """

    observed: list[list[float | None]]
    expected: list[list[float]]
    z: list[list[float]]
    bound: float


def largest_z(overlap: Overlap | None) -> float | None:
    """The largest absolute standard score of all pairs of nodes; None if nothing is known."""
    return max((abs(z) for row in overlap.z for z in row), default=None) if overlap else None


def replicas_of(registers: Registers, tau: int, spectrum: Spectrum) -> dict[int, int] | None:
    """Number of replicas → number of chunks, from the sums of the registers; None if the registers are too full."""
    if spectrum.saturated or (registers == tau).any():
        return None
    counts = spectrum_from_sums(registers, tau, spectrum.replication_factor).counts
    return {number: int(chunks) for number, chunks in enumerate(np.rint(counts.clip(0)), 1) if chunks >= 1}


def overlap_of(
    registers: Registers, replicas: Replicas, online: Sequence[Member], spans: Sequence[Span]
) -> Overlap | None:
    """Compare the observed overlap with the expected one; returns None for less than two nodes.

    Args:
        registers: the sketches of the online nodes, shape ``[m, N']``.
        replicas: number of replicas → number of chunks.
        online: the m online nodes, in the order of the registers.
        spans: the cluster's history.
    """
    if len(online) < 2:
        return None
    observed = pairwise_overlaps(registers)
    expected = _expected(replicas, registers.sum(axis=1, dtype=np.int64), online, spans)
    return Overlap(
        [
            [None if full else chunks for chunks, full in zip(row, flags, strict=True)]
            for row, flags in zip(_rounded(observed.intersection, 1), observed.saturated.tolist(), strict=True)
        ],
        _rounded(expected.mean, 1),
        _rounded(expected.scores(observed), 2),
        round(score_bound(len(online) * (len(online) - 1) // 2), 2),
    )


def epochs_of(replicas: Mapping[int, int], spans: Sequence[Span], node_ids: Sequence[str]) -> list[Epoch]:
    """Divide the chunks with each number of replicas among the spans in which they were stored.

    Chunks may have a number of replicas that is no file's replication factor, for example while a node is away: such
    chunks are divided in proportion to all chunks of each span. Chunks with more replicas than a span had nodes were
    placed later, over all nodes: they count in the last span. An epoch is the nodes and chunks of one span.

    Args:
        replicas: number of replicas → number of chunks, as the sketches tell.
        spans: the cluster's history; the last span has all nodes.
        node_ids: the nodes whose sketches were read, in the order of the sketches.
    """
    everything = sum(sum(span.chunks.values()) for span in spans)
    epochs = []
    for span in spans:
        if not span.chunks and span is not spans[-1]:
            continue
        nodes = tuple(column for column, node_id in enumerate(node_ids) if node_id in span.node_ids)
        parts: dict[int, int] = {}
        for number, chunks in replicas.items():
            recorded = sum(other.chunks.get(number, 0) for other in spans)
            mine = span.chunks.get(number, 0) if recorded else sum(span.chunks.values())
            part = mine / (recorded or everything) if recorded or everything else float(span is spans[-1])
            if number <= len(nodes):
                parts[number] = round(chunks * part)
        epochs.append(Epoch(nodes, parts))
    for number, chunks in replicas.items():
        rest = chunks - sum(epoch.replicas.get(number, 0) for epoch in epochs)
        last = dict(epochs[-1].replicas)
        last[number] = max(last.get(number, 0) + rest, 0)
        epochs[-1] = Epoch(epochs[-1].nodes, last)
    return epochs


def _expected(
    replicas: Replicas, chunks: NDArray[np.int64], online: Sequence[Member], spans: Sequence[Span]
) -> ExpectedOverlap:
    epochs = epochs_of(replicas, spans, [member.node_id for member in online])
    if not any(member.zone for member in online):
        return epochs_overlap(epochs, chunks)
    parts = [
        (
            epoch.nodes,
            simulated_overlap(epoch.replicas, placed_at_random([online[n] for n in epoch.nodes]), NULL_SAMPLES),
        )
        for epoch in epochs
        if epoch.nodes
    ]
    return ExpectedOverlap.summed(len(online), parts)


def placed_at_random(members: Sequence[Member]) -> Callable[[int], NDArray[np.intp]]:
    """A function that places a given number of random chunks.

    The random numbers have a fixed seed, so that the expected figures do not change from one survey to the next.
    """
    candidates = [member.candidate for member in members]
    drawn = np.random.default_rng(0)

    def rank(chunks: int) -> NDArray[np.intp]:
        prefixes = drawn.bytes(8 * chunks).hex()
        return placement.rank([prefixes[16 * i : 16 * (i + 1)] for i in range(chunks)], candidates)

    return rank


def _rounded(matrix: NDArray[np.float64], digits: int) -> list[list[float]]:
    rows: list[list[float]] = (matrix.round(digits) + 0.0).tolist()  # Adding 0.0 turns -0.0 into 0.0.
    return rows
