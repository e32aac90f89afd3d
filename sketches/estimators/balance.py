"""Compares the chunks on each node with the share that the node should hold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketches.estimators.estimate import Z_95, Estimate
from sketches.estimators.overlap import pairwise_overlaps
from sketches.estimators.union import union_estimate
from sketches.registers import checked_registers


@dataclass(frozen=True)
class NodeBalance:
    """One node's part of all replicas.

    Attributes:
        chunks: how many chunks the node holds.
        share: the node's part of the replicas of all nodes, in [0, 1]; 0 if there are no replicas. If the sketch of any
            node is saturated, only bounds of the share are known, which hold for all numbers of chunks within the
            bounds of the nodes.
        fair_share: the part that the node should hold, in [0, 1].
    """

    chunks: Estimate
    share: Estimate
    fair_share: float


@dataclass(frozen=True)
class Balance:
    """The balance of a cluster.

    Attributes:
        nodes: one entry per node.
        peak: the largest ratio of a node's share to its fair share (1 if every node holds its fair share, 0 without
            chunks). The cluster is full when it holds ``1 / peak`` of the chunks that a balanced cluster would hold.
            None if no node should hold anything.
    """

    nodes: tuple[NodeBalance, ...]
    peak: Estimate | None


def node_balance(registers: NDArray[np.uint8], weights: ArrayLike) -> Balance:
    """Compare the chunks on every node with its fair share of the replicas.

    The share of node i is ``n_i / sum n``, where ``n_i`` is the estimated number of chunks on node i alone. The
    variance of a share follows by the delta method from ``Cov(n_i, n_j) = N' g(w/N')``, with ``g(x) = e^x - 1 - x`` and
    w the chunks that nodes i and j both hold: these chunks cause the same collisions on both nodes.

    Args:
        registers: aligned registers of m nodes, shape ``[m, n_prime]``; it only matters whether they are zero.
        weights: what each node should hold, in any unit (its capacity, say), at least 0; 0 for a node that should be
            emptied. Shape ``[m]``.

    Raises:
        ValueError: there is not one weight per node, a weight is negative or not finite, or as by `checked_registers`.
    """
    registers = checked_registers(registers)
    weight = np.asarray(weights, np.float64)
    if weight.shape != registers.shape[:1] or not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError("every node has one weight, at least 0")
    pairs = pairwise_overlaps(registers)
    chunks = [union_estimate(int(empty), pairs.n_prime) for empty in np.diagonal(pairs.empty)]
    fair = weight / weight.sum() if weight.any() else weight
    if any(node.saturated for node in chunks):
        shares = _bounded_shares(chunks)
    else:
        in_common = np.maximum(pairs.intersection, 0.0) / pairs.n_prime
        shares = _shares(chunks, pairs.n_prime * (np.expm1(in_common) - in_common))
    nodes = tuple(NodeBalance(*entry) for entry in zip(chunks, shares, fair.tolist(), strict=True))
    return Balance(nodes, _peak(nodes))


def _shares(chunks: Sequence[Estimate], covariance: NDArray[np.float64]) -> list[Estimate]:
    """Return each node's share with a normal interval, made wider by half a chunk at each end and cut to [0, 1]."""
    counts = np.array([node.estimate for node in chunks])
    total = counts.sum()
    if total == 0:
        return [Estimate(0.0, 0.0, 0.0, saturated=False) for _ in chunks]
    share = counts / total
    gradient = (np.eye(len(share)) - share[:, None]) / total
    variance = np.maximum(np.einsum("ij,jk,ik->i", gradient, covariance, gradient), 0.0)
    half = Z_95 * np.sqrt(variance) + (1 - share) / (2 * total)
    ends = np.stack([share, np.maximum(share - half, 0.0), np.minimum(share + half, 1.0)], axis=1)
    return [Estimate(middle, lower, upper, saturated=False) for middle, lower, upper in ends.tolist()]


def _bounded_shares(chunks: Sequence[Estimate]) -> list[Estimate]:
    """Return the range of each share if a node may hold any number of chunks between its bounds.

    A share is lowest when the other nodes hold most, and highest when they hold least.
    """
    shares = []
    for node, one in enumerate(chunks):
        others = [*chunks[:node], *chunks[node + 1 :]]
        least = sum(other.lower_bound for other in others)
        most = sum(math.inf if other.upper_bound is None else other.upper_bound for other in others)
        lower = one.lower_bound / (one.lower_bound + most) if one.lower_bound > 0 else 0.0
        upper = 1.0 if one.upper_bound is None else one.upper_bound / max(one.upper_bound + least, 1.0)
        shares.append(Estimate(lower, lower, upper, saturated=True))
    return shares


def _peak(nodes: Sequence[NodeBalance]) -> Estimate | None:
    """Return the largest ratio of a node's share to its fair share; None if no node should hold anything."""
    relative = [
        Estimate(
            node.share.estimate / node.fair_share,
            node.share.lower_bound / node.fair_share,
            None if node.share.upper_bound is None else node.share.upper_bound / node.fair_share,
            node.share.saturated,
        )
        for node in nodes
        if node.fair_share > 0
    ]
    return max(relative, key=lambda load: load.estimate, default=None)
