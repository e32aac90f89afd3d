"""How much two healthy nodes are expected to have in common, to hold what is observed against.

The replicas of a chunk lie on distinct nodes, so independent random sets are the wrong null: with three replicas on
five nodes every healthy pair would seem to share far too little. Every chunk with r replicas lies on nodes a and b with
a probability ``pi_ab(r)`` of its placement; the chunks are placed independently of each other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketches.estimators.discrete import count_score
from sketches.estimators.overlap import PairwiseOverlaps

Floats: TypeAlias = NDArray[np.float64]
Replicas: TypeAlias = Mapping[int, int]
"""Number of replicas → how many chunks have so many."""

MISFIT = 5e-4
"""How far ``pi_ab`` of weighted rendezvous hashing lies at most from its fit by the shares (weights 1 to 16)."""

PRECISION = 1e-9
"""Of fitted shares, which are kept as far from 0 and 1: their weights would be 0 and infinite."""

MAX_FITTING_STEPS = 500


@dataclass(frozen=True)
class ExpectedOverlap:
    """The null: the overlap of every two of m healthy nodes; the diagonal is each node with itself.

    Attributes:
        mean: chunks on both nodes, float64 ``[m, m]``.
        variance: of the true overlap about the mean, in chunks squared, float64 ``[m, m]``.
    """

    mean: Floats
    variance: Floats

    def scores(self, observed: PairwiseOverlaps) -> Floats:
        """Standard scores of the observed overlaps, float64 ``[m, m]``, always finite.

        Among healthy nodes with 30 chunks or more, less than 1 % of the pairs lie beyond 3. Saturated pairs, of which
        nothing is known, and the diagonal score 0.

        Raises:
            ValueError: observed and expected are not of the same number of nodes.
        """
        if observed.intersection.shape != self.mean.shape:
            raise ValueError(f"{len(observed.intersection)} nodes observed, {len(self.mean)} expected")
        variance = self.variance + observed.intersection_variance
        step = observed.n_prime / np.maximum(np.diagonal(observed.empty), 1)
        score = count_score(observed.intersection - self.mean, variance, np.maximum(step[:, None], step))
        return np.where(observed.saturated | np.eye(len(score), dtype=np.bool_), 0.0, score)


def uniform_overlap(replicas: Replicas, nodes: int) -> ExpectedOverlap:
    """The null when all nodes are alike: ``pi = r (r - 1) / (m (m - 1))``, and ``r / m`` for a node with itself.

    Args:
        replicas: number of replicas r → chunks with so many; 0 to m.
        nodes: m.

    Raises:
        ValueError: a number of replicas is not 0 to m, or one of chunks is negative.
    """
    _check(replicas, nodes)
    mean, variance = np.zeros((2, nodes, nodes))
    for r, chunks in replicas.items():
        together = np.full((nodes, nodes), r * (r - 1) / max(nodes * (nodes - 1), 1))
        np.fill_diagonal(together, r / max(nodes, 1))
        mean += chunks * together
        variance += chunks * together * (1 - together)
    return ExpectedOverlap(mean, variance)


def fitted_overlap(replicas: Replicas, chunks_per_node: ArrayLike) -> ExpectedOverlap:
    """The null when placement prefers some nodes, by weights that only show in how full the nodes are.

    Of all placements with these shares the one of greatest entropy is the conditional Bernoulli distribution,
    ``P(node set of size r) ~ product of its weights`` (Chen, Dempster and Liu, Biometrika 81, 1994); ``pi`` are
    quotients of elementary symmetric polynomials, computed by additions alone. As the shares are those observed, the
    overlap varies only by what they leave open: the variance is that of the residual of its regression on the shares
    (derived here), next to nothing for two nodes. It includes the misfit of weighted rendezvous hashing, at most 5e-4
    of the chunks where all have the same number of replicas. One set of weights does not fit several numbers: with
    30 % of the chunks at one and 70 % at three replicas, and weights from 1 to 4, pairs are off by up to .01 of the
    chunks, and healthy ones score beyond 3 from some 10^5 chunks on.

    Args:
        replicas: number of replicas r → chunks with so many, known exactly; 0 to m.
        chunks_per_node: of m nodes, known exactly (such as the sums of registers, none of them saturated), shape
            ``[m]``; rescaled to add up to the replicas. Memory grows as m⁴, time as m⁴ max(r): 0.04 s for m = 20,
            0.6 s for m = 50.

    Raises:
        ValueError: a number of replicas is not 0 to m, or one of chunks is negative.
    """
    held = np.asarray(chunks_per_node, np.float64)
    _check(replicas, len(held))
    if (held < 0).any():
        raise ValueError("a node cannot hold a negative number of chunks")
    weights = _fit_weights(replicas, held)
    mean, variance, between_nodes = np.zeros((3, *2 * held.shape))
    with_nodes = np.zeros(3 * held.shape)  # covariance of the overlap of two nodes with the chunks on a third
    for r, chunks in replicas.items():
        three = _all_three(weights, r)
        two = np.einsum("aab->ab", three)
        one = np.diagonal(two)
        mean += chunks * two
        variance += chunks * two * (1 - two)
        between_nodes += chunks * (two - one[:, None] * one)
        with_nodes += chunks * (three - two[:, :, None] * one)
    # The chunks on all nodes add up to the replicas, so that their covariance is singular.
    inverse = np.linalg.pinv(between_nodes, rcond=PRECISION, hermitian=True)
    explained = np.einsum("abi,ij,abj->ab", with_nodes, inverse, with_nodes, optimize=True)
    misfit = MISFIT * sum(replicas.values())
    return ExpectedOverlap(mean, np.maximum(variance - explained, 0.0) + misfit**2)


def simulated_overlap(
    replicas: Replicas, rank: Callable[[int], NDArray[np.integer]], samples: int = 1 << 16
) -> ExpectedOverlap:
    """The null of any placement, such as one with zones: by placing chunks and counting.

    Args:
        replicas: number of replicas r → chunks with so many; 0 to m.
        rank: given a number of chunks, draws so many at random and returns, shape ``[chunks, m]``, the m nodes in the
            order in which each chunk prefers them: its r replicas lie on the first r.
        samples: chunks to place. What they leave uncertain is part of the variance, which doubles when there are as
            few samples as chunks.

    Raises:
        ValueError: a number of replicas is not 0 to m, or one of chunks is negative.
    """
    order = rank(samples)
    nodes = order.shape[1]
    _check(replicas, nodes)
    place = np.argsort(order, axis=1)
    mean, variance, simulation_sd = np.zeros((3, nodes, nodes))
    for r, chunks in replicas.items():
        holds = (place < r).astype(np.float32)  # exact sums up to 2^24 samples
        together = (holds.T @ holds).astype(np.float64) / samples
        mean += chunks * together
        variance += chunks * together * (1 - together)
        simulation_sd += chunks * np.sqrt(together * (1 - together) / samples)
    return ExpectedOverlap(mean, variance + simulation_sd**2)


def _check(replicas: Replicas, nodes: int) -> None:
    if any(not 0 <= r <= nodes or chunks < 0 for r, chunks in replicas.items()):
        raise ValueError(f"{dict(replicas)} are no numbers of chunks by number of replicas on {nodes} nodes")


def _fit_weights(replicas: Replicas, held: Floats) -> Floats:
    """The weights of the conditional Bernoulli distribution under which nodes hold ``held`` chunks, but for scale.

    The odds of every node are corrected by the square root of what they lack: the full correction overshoots, because
    the odds of the others fall, and with two nodes would swing for ever.
    """
    weights = np.ones(len(held))
    chunks, total = sum(replicas.values()), sum(r * chunks for r, chunks in replicas.items())
    if total == 0 or not held.any():
        return weights
    share = np.clip(held * (total / held.sum() / chunks), PRECISION, 1 - PRECISION)
    for _ in range(MAX_FITTING_STEPS):
        fitted = sum((count / chunks * _inclusion(weights, r) for r, count in replicas.items()), np.zeros(len(held)))
        fitted = np.clip(fitted, PRECISION, 1 - PRECISION)
        if np.abs(fitted - share).max() < PRECISION:
            break
        weights *= np.sqrt(share * (1 - fitted) / (fitted * (1 - share)))
        weights = np.maximum(weights / weights.max(), PRECISION)
    return weights


def _inclusion(weights: Floats, r: int) -> Floats:
    """The probability that a node is among the r of a chunk, float64 ``[m]``."""
    if r == 0:
        return np.zeros_like(weights)
    without = _symmetric_polynomials(weights, ~np.eye(len(weights), dtype=np.bool_), r)
    share = weights * without[:, r - 1]
    return np.asarray(share / (share + without[:, r]))


def _all_three(weights: Floats, r: int) -> Floats:
    """The probability that nodes a, b and c, not necessarily distinct, are among the r: float64 ``[m, m, m]``."""
    node = np.arange(len(weights))
    chosen = np.zeros(4 * weights.shape, np.bool_)
    for axis in range(3):
        chosen |= np.expand_dims(node, [other for other in range(3) if other != axis])[..., None] == node
    distinct = chosen.sum(axis=-1)
    others = _symmetric_polynomials(weights, ~chosen, r)
    rest = np.take_along_axis(others, np.maximum(r - distinct, 0)[..., None], axis=-1)[..., 0]
    of_chosen = np.where(chosen, weights, 1.0).prod(axis=-1)
    everything = _symmetric_polynomials(weights, np.ones(len(weights), np.bool_), r)[r]
    return np.where(distinct <= r, of_chosen * rest / everything, 0.0)


def _symmetric_polynomials(weights: Floats, kept: NDArray[np.bool_], r: int) -> Floats:
    """The elementary symmetric polynomials of degree 0 to r of the weights kept: ``[..., m]`` to ``[..., r + 1]``."""
    polynomials = np.zeros((*kept.shape[:-1], r + 1))
    polynomials[..., 0] = 1.0
    for node, weight in enumerate(weights):
        polynomials[..., 1:] += np.where(kept[..., node, None], weight, 0.0) * polynomials[..., :-1]
    return polynomials
