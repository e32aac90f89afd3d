"""A cluster's history in epochs, and the weights of its nodes that explain how full they are (see `race`).

An epoch is a span of time in which the set of nodes was the same. The chunks of an epoch could only go to the nodes of
that time. Nodes that joined late therefore share more chunks with each other, and fewer with the other nodes, than one
placement over today's nodes would give. The database records how many chunks, with how many replicas, each epoch
stored. The fit does not need to know on which nodes the chunks of an epoch lie. One set of weights serves all epochs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketches.estimators.race import Race, Replicas

Floats: TypeAlias = NDArray[np.float64]

PRECISION = 1e-10
"""Precision of fitted shares, which are kept ten times this far from 0 and 1, where weights would be 0 and infinite."""

LEAST_WEIGHT = 1e-12
"""The smallest weight, relative to the largest."""

RIDGE = 1e-14
"""This number is added to the equations' diagonal: they are singular if two groups of nodes exchange no replicas."""

MAX_FITTING_STEPS = 50
MAX_HALVINGS = 10
PROGRESS = 0.99
"""A step must leave at most this part of the sum of squared gaps between the wanted and the fitted shares.

If no step does, the gaps that are left cannot be closed.
"""

LONGEST_STEP = 4.0
"""The most by which one step changes the logarithm of a weight."""


@dataclass(frozen=True)
class Epoch:
    """Chunks that were placed over the same nodes.

    A chunk that a rebalance or a drain has since placed again belongs to the epoch of that move.

    Attributes:
        nodes: today's nodes that existed in this epoch, as indices from 0 to m - 1.
        replicas: r, 0 to the number of these nodes → number of chunks with r replicas.
    """

    nodes: tuple[int, ...]
    replicas: Replicas


@dataclass(frozen=True, eq=False)
class Part:
    """The chunks of all epochs that had the same nodes.

    Attributes:
        nodes: int64 ``[k]``, ascending.
        choosing: the chunks with fewer replicas than there are nodes, for which placement chose among the nodes: r, 1
            to k - 1 → number of chunks with r replicas, above 0.
        everywhere: number of chunks on all k nodes, for which placement had no choice.
    """

    nodes: NDArray[np.int64]
    choosing: Mapping[int, float]
    everywhere: float

    @property
    def block(self) -> tuple[NDArray[np.int64], ...]:
        """The index of the part's pairs of nodes in a matrix over all nodes."""
        return np.ix_(self.nodes, self.nodes)

    @property
    def chunks(self) -> float:
        """Number of chunks that had a choice among the nodes."""
        return sum(self.choosing.values())


@dataclass(frozen=True, eq=False)
class History:
    """Epochs, and the weights by which their chunks would have chosen the nodes.

    Attributes:
        weights: float64 ``[m]``, above 0; any number for a node that no chunk could choose.
        parts: the epochs; epochs with the same nodes are one part.
    """

    weights: Floats
    parts: tuple[Part, ...]

    def races(self) -> Iterator[tuple[Part, Race]]:
        """Yield each part that has chunks with fewer replicas than the part has nodes, with the race of these nodes."""
        for part in self.parts:
            if part.choosing:
                yield part, Race(self.weights[part.nodes], max(part.choosing))

    def everywhere(self) -> Floats:
        """Number of chunks without a choice on both of two nodes (on the diagonal: on one node), float64 ``[m, m]``."""
        chunks = np.zeros(2 * self.weights.shape)
        for part in self.parts:
            chunks[part.block] += part.everywhere
        return chunks


def fitted_history(epochs: Sequence[Epoch], chunks_per_node: ArrayLike) -> History:
    """Fit one set of weights with which nodes are expected to hold as many chunks as they do.

    `Race.inclusion` is the gradient of a convex function of the log weights: the expected sum of the r largest of
    independent Gumbel variables, each located at the log weight of one node (their order is that of the race). Sums
    over epochs are convex as well. There is one solution, up to scale. Newton's method finds the solution, beginning
    with the weights that would fit if nodes took chunks independently.

    Args:
        epochs: where chunks were placed.
        chunks_per_node: exact numbers of chunks of m nodes, shape ``[m]``; they are rescaled to add up to the replicas.
            Numbers that no placement could give are fitted as closely as possible.

    Raises:
        ValueError: a number of replicas is not 0 to the number of nodes of its epoch, a number of chunks is negative,
            or a node is unknown or named twice.
    """
    held = np.array(chunks_per_node, np.float64)
    if held.ndim != 1 or (held < 0).any():
        raise ValueError("every node holds a number of chunks, none of them negative")
    parts = _merged(epochs, len(held))
    total = sum(r * chunks for epoch in epochs for r, chunks in epoch.replicas.items())
    held = held * (total / held.sum()) if held.any() else np.full_like(held, total / max(len(held), 1))
    unfitted = History(np.ones_like(held), parts)
    return History(_fitted_weights(unfitted, held - np.diagonal(unfitted.everywhere())), parts)


def _merged(epochs: Sequence[Epoch], nodes: int) -> tuple[Part, ...]:
    merged: dict[tuple[int, ...], dict[int, float]] = {}
    for epoch in epochs:
        present = tuple(sorted(set(epoch.nodes)))
        if len(present) < len(epoch.nodes) or any(not 0 <= node < nodes for node in present):
            raise ValueError(f"{epoch.nodes} are no distinct nodes out of {nodes}")
        check_replicas(epoch.replicas, len(present))
        replicas = merged.setdefault(present, {})
        for r, chunks in epoch.replicas.items():
            replicas[r] = replicas.get(r, 0.0) + chunks
    return tuple(
        Part(
            np.array(present, np.int64),
            {r: chunks for r, chunks in replicas.items() if 0 < r < len(present) and chunks},
            replicas.get(len(present), 0.0) if present else 0.0,
        )
        for present, replicas in merged.items()
    )


def check_replicas(replicas: Replicas, nodes: int) -> None:
    """Raise an error for numbers of replicas that ``nodes`` nodes cannot hold.

    Raises:
        ValueError: a number of replicas is not 0 to ``nodes``, or a number of chunks is negative.
    """
    if any(not 0 <= r <= nodes or chunks < 0 for r, chunks in replicas.items()):
        raise ValueError(f"{dict(replicas)} are no numbers of chunks by number of replicas on {nodes} nodes")


def _fitted_weights(unfitted: History, held: Floats) -> Floats:
    """Find the weights for the chunks that had a choice; ``held`` is how many of these chunks each node holds."""
    choosing = [part for part in unfitted.parts if part.choosing]
    chunks = sum(part.chunks for part in choosing)
    exposure = np.zeros_like(held)
    for part in choosing:
        exposure[part.nodes] += part.chunks / chunks
    free = exposure > 0
    if not free.any():
        return unfitted.weights
    total = sum(r * count for part in choosing for r, count in part.choosing.items()) / chunks
    share = _possible(held[free] / chunks, exposure[free], total)
    weights = unfitted.weights.copy()
    weights[free] = -np.log1p(-share / exposure[free])
    fit = _Fit.of(weights, choosing, chunks)
    gap = share - fit.inclusion[free]
    for _ in range(MAX_FITTING_STEPS):
        if np.abs(gap).max() < PRECISION:
            break
        # The common scale of the weights is free. The 1 adds an equation that keeps the scale.
        equations = fit.sensitivity()[np.ix_(free, free)] + 1 + RIDGE * np.eye(len(gap))
        step = np.clip(np.linalg.solve(equations, gap), -LONGEST_STEP, LONGEST_STEP)
        for _ in range(MAX_HALVINGS):
            weights = fit.weights.copy()
            weights[free] *= np.exp(step)
            closer = _Fit.of(weights, choosing, chunks)
            left = share - closer.inclusion[free]
            if left @ left < PROGRESS * (gap @ gap):
                break
            step /= 2
        else:
            break
        fit, gap = closer, left
    return fit.weights


@dataclass(frozen=True, eq=False)
class _Fit:
    """Weights that the fit tries, and the shares of chunks that they give to the nodes.

    Attributes:
        weights: float64 ``[m]``; the largest is 1.
        races: each part, its replica numbers (r → share of the chunks of all parts), and its race.
        inclusion: float64 ``[m]``, share of all chunks expected on each node.
    """

    weights: Floats
    races: Sequence[tuple[Part, Replicas, Race]]
    inclusion: Floats

    @classmethod
    def of(cls, weights: Floats, choosing: Sequence[Part], chunks: float) -> "_Fit":
        scaled = np.maximum(weights / weights.max(), LEAST_WEIGHT)
        races = [
            (part, {r: count / chunks for r, count in part.choosing.items()}, race)
            for part, race in History(scaled, tuple(choosing)).races()
        ]
        inclusion = np.zeros_like(scaled)
        for part, mixture, race in races:
            inclusion[part.nodes] += race.inclusion(mixture)
        return cls(scaled, races, inclusion)

    def sensitivity(self) -> Floats:
        """The derivative of ``inclusion`` by the logarithms of the weights, float64 ``[m, m]``."""
        summed = np.zeros(2 * self.weights.shape)
        for part, mixture, race in self.races:
            summed[part.block] += race.sensitivity(mixture)
        return summed


def _possible(share: Floats, exposure: Floats, total: float) -> Floats:
    """Move shares to possible values between 0 and ``exposure``, with the sum ``total``.

    The new shares stay 10 `PRECISION` away from 0 and ``exposure``, which is the share of all chunks that could choose
    a node.
    """
    share = np.clip(share, 0.0, exposure)
    lack = total - share.sum()
    if lack > 0:
        room = exposure - share
        share += room * (lack / room.sum())
    elif lack < 0:
        share *= total / share.sum()
    return np.asarray(share + 10 * PRECISION * (exposure * (total / exposure.sum()) - share))
