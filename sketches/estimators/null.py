"""The null: the overlap that two healthy nodes are expected to have, for a comparison with the observed overlap.

The replicas of a chunk lie on distinct nodes, so independent random sets are the wrong null: with three replicas on
five nodes every healthy pair would seem to share far too little. A chunk with r replicas lies on both nodes a and b
with a probability ``pi_ab(r)``, which the placement determines. The chunks are placed independently of each other.

If some nodes joined late, the module `epochs` is needed. A null that places every chunk over all nodes would raise
false alarms: on healthy clusters whose nodes did not all join at once, a fifth to all of the pairs would score beyond
3.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketches.estimators.discrete import count_score
from sketches.estimators.epochs import Epoch, History, check_replicas, fitted_history
from sketches.estimators.overlap import PairwiseOverlaps
from sketches.estimators.race import Replicas

Floats: TypeAlias = NDArray[np.float64]

PRECISION = 1e-9
"""Precision of variances and covariances, relative to the largest of them."""

SINGLE = 16
"""Up to this many nodes, an overlap is regressed on the chunks on each node; for more nodes, on fewer sums."""


@dataclass(frozen=True)
class ExpectedOverlap:
    """The null: the overlap of every two of m healthy nodes; on the diagonal, the chunks of a single node.

    Attributes:
        mean: chunks on both nodes, float64 ``[m, m]``.
        variance: of the true overlap about the mean, in chunks squared, float64 ``[m, m]``.
    """

    mean: Floats
    variance: Floats

    @classmethod
    def summed(cls, nodes: int, parts: Iterable[tuple[Sequence[int], "ExpectedOverlap"]]) -> Self:
        """Sum the nulls of epochs, each over some of ``nodes`` nodes. Simulated placements use this method to add up
        their epochs.

        Args:
            nodes: m.
            parts: for each epoch, its nodes, in the order of the rows of its null, and its null.
        """
        mean, variance = np.zeros((2, nodes, nodes))
        for present, part in parts:
            mean[np.ix_(present, present)] += part.mean
            variance[np.ix_(present, present)] += part.variance
        return cls(mean, variance)

    def scores(self, observed: PairwiseOverlaps) -> Floats:
        """Standard scores of the observed overlaps, float64 ``[m, m]``, always finite.

        Among healthy nodes with 30 chunks or more, less than 1 % of the pairs lie beyond 3. The diagonal scores 0, and
        so do saturated pairs, about which nothing is known.

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
    """The null when all nodes are alike: ``pi = r (r - 1) / (m (m - 1))``; on the diagonal, ``r / m``.

    Args:
        replicas: r, 0 to m → number of chunks with r replicas.
        nodes: m.

    Raises:
        ValueError: a number of replicas is not 0 to m, or a number of chunks is negative.
    """
    check_replicas(replicas, nodes)
    mean, variance = np.zeros((2, nodes, nodes))
    for r, chunks in replicas.items():
        together = np.full((nodes, nodes), r * (r - 1) / max(nodes * (nodes - 1), 1))
        np.fill_diagonal(together, r / max(nodes, 1))
        mean += chunks * together
        variance += chunks * together * (1 - together)
    return ExpectedOverlap(mean, variance)


def epochs_overlap(epochs: Sequence[Epoch], chunks_per_node: ArrayLike) -> ExpectedOverlap:
    """The null of weighted rendezvous hashing over a history; the weights are fitted to how full the nodes are.

    One set of weights is fitted to the share of the replicas that each node holds (see `epochs`). The probabilities for
    every number of replicas follow from the law of the placement (see `race`), exactly except for rounding.

    The observed shares are taken as given. The variance of the overlap is the part that the shares do not explain: that
    of the residual when the overlap is regressed on the shares (derived here). The variance is 0 for two nodes, and
    where every chunk is on all nodes but one. The mean follows from the fitted weights and not from the regression, but
    the two agree almost: by the delta method, the standard deviation about the fitted mean is larger by up to 0.06 %
    under one replication factor, and by up to 4 % under several (weights from 1 to 100). The weights must have been the
    same for all chunks.

    The variance is exact for up to 16 nodes. For more than 16 nodes, the overlap of a pair is regressed on the chunks
    on each of its two nodes, on the chunks on each of the nodes that were together in an epoch of 16 or fewer nodes,
    and on two sums over the other nodes. The variance for more than 16 nodes is therefore slightly too large. The root
    of the variance is too large by at most 0.13 % with weights from 1 to 4 and 2 % with weights from 1 to 100, at 17 to
    50 nodes and up to five replicas. (With 19 replicas on 20 of 24 nodes, the root is too large by 3 % and 17 %.)

    For each distinct set of nodes in ``epochs``, memory grows as m^2 and time as m^2 r.

    Args:
        epochs: where chunks were placed, as known exactly from the record.
        chunks_per_node: exact numbers of chunks of m nodes (such as the sums of registers if no register is saturated),
            shape ``[m]``; they are rescaled to add up to the replicas. A node that does not answer is included with its
            number on record, because chunks may lie there.

    Raises:
        ValueError: as by `fitted_history`.
    """
    history = fitted_history(epochs, chunks_per_node)
    mean = history.everywhere()
    for part, race in history.races():
        mean[part.block] += race.pairs(part.choosing)
    return ExpectedOverlap(mean, _residual_variance(history))


def fitted_overlap(replicas: Replicas, chunks_per_node: ArrayLike) -> ExpectedOverlap:
    """The null of weighted rendezvous hashing where all nodes were there from the first chunk on: one epoch.

    Args:
        replicas: r, 0 to m → number of chunks with r replicas, known exactly.
        chunks_per_node: numbers of chunks of m nodes, as for `epochs_overlap`.

    Raises:
        ValueError: a number of replicas is not 0 to m, or a number of chunks is negative.
    """
    nodes = tuple(range(len(np.asarray(chunks_per_node))))
    return epochs_overlap([Epoch(nodes, replicas)], chunks_per_node)


def simulated_overlap(
    replicas: Replicas, rank: Callable[[int], NDArray[np.integer]], samples: int = 1 << 16
) -> ExpectedOverlap:
    """The null of any placement, such as one with zones: chunks are placed at random, and the overlaps are counted.

    Args:
        replicas: r, 0 to m → number of chunks with r replicas.
        rank: a function that draws a given number of chunks at random. The function returns, shape ``[chunks, m]``, the
            m nodes in the order in which each chunk prefers them: the r replicas of a chunk lie on its first r nodes.
        samples: number of chunks to place. The uncertainty that these samples leave is part of the variance, and
            doubles it if there are only as many samples as chunks.

    Raises:
        ValueError: a number of replicas is not 0 to m, or a number of chunks is negative.
    """
    order = rank(samples)
    nodes = order.shape[1]
    check_replicas(replicas, nodes)
    place = np.argsort(order, axis=1)
    mean, variance, simulation_sd = np.zeros((3, nodes, nodes))
    for r, chunks in replicas.items():
        holds = (place < r).astype(np.float32)  # float32 sums are exact up to 2^24 samples
        together = (holds.T @ holds).astype(np.float64) / samples
        mean += chunks * together
        variance += chunks * together * (1 - together)
        simulation_sd += chunks * np.sqrt(together * (1 - together) / samples)
    return ExpectedOverlap(mean, variance + simulation_sd**2)


def _residual_variance(history: History) -> Floats:
    """The variance of every two nodes' overlap that the chunks on each node do not explain, float64 ``[m, m]``.

    The overlap is regressed in two steps. The first step uses the sums of `_explaining`, made uncorrelated. The second
    step uses the chunks on each of the two nodes, less the part that these sums explain.
    """
    moments = _moments(history)
    between = moments.between_nodes
    sums = _uncorrelated(moments.values, between)
    with_nodes = sums @ moments.values @ between
    with_pairs = np.einsum("kj,jab->kab", sums, moments.pairs_with_values)
    left = between - with_nodes.T @ with_nodes
    own = np.diagonal(left)
    own = np.where(own > 1e2 * PRECISION * np.diagonal(between), own, 0.0)
    first = moments.pairs_with_first - np.einsum("ka,kab->ab", with_nodes, with_pairs)
    explained = (with_pairs**2).sum(axis=0) + _explained_by_two(first, own, left)
    return np.asarray(np.maximum(moments.variance - explained, 0.0))


@dataclass(frozen=True, eq=False)
class _Moments:
    """Variances and covariances of numbers of chunks, if the chunks of a history are placed at random; float64.

    Attributes:
        values: ``[k, m]``: k weighted sums over the nodes, each with a factor for the chunks on each node.
        variance: ``[m, m]``, variance of the chunks on both of two nodes.
        between_nodes: ``[m, m]``, covariance of the chunks on one node with those on another.
        pairs_with_first: ``[m, m]``, covariance of the chunks on both of two nodes with those on the first.
        pairs_with_values: ``[k, m, m]``, covariance of the chunks on both of two nodes with the sums.
    """

    values: Floats
    variance: Floats
    between_nodes: Floats
    pairs_with_first: Floats
    pairs_with_values: Floats


def _moments(history: History) -> _Moments:
    """Sum the moments over epochs and numbers of replicas. How many chunks have r replicas is fixed, not random."""
    nodes, values = len(history.weights), _explaining(history)
    variance, between, with_first = np.zeros((3, nodes, nodes))
    with_values = np.zeros((len(values), nodes, nodes))
    for part, race in history.races():
        inside = values[:, part.nodes]
        for r, chunks in part.choosing.items():
            two = race.pairs({r: 1})
            one = np.diagonal(two)
            variance[part.block] += chunks * two * (1 - two)
            between[part.block] += chunks * (two - one[:, None] * one)
            with_first[part.block] += chunks * two * (1 - one[:, None])
            for k in np.flatnonzero(inside.any(axis=1)):
                with_values[k][part.block] += chunks * (race.pairs_with({r: 1}, inside[k]) - two * (inside[k] @ one))
    return _Moments(values, variance, between, with_first, with_values)


def _explaining(history: History) -> Floats:
    """The weights of the k sums that the overlaps are regressed on, float64 ``[k, m]``: a row for each sum.

    Each sum adds up the chunks on the m nodes, and weighs each node.

    With more than 16 nodes, two sums stand for most nodes: the sum of the chunks on these nodes, and the same sum
    weighted by the nodes' shares. The chunks on other nodes tell little about a pair, and nodes of similar share tell
    nearly the same. The more nodes there are, the less is lost by these two sums.
    """
    nodes = len(history.weights)
    if nodes <= SINGLE:
        return np.eye(nodes)
    parts = sorted((part for part in history.parts if part.choosing), key=lambda part: len(part.nodes))
    small = [node for part in parts if len(part.nodes) <= SINGLE for node in part.nodes.tolist()]
    single = list(dict.fromkeys(small))[:SINGLE]
    share = np.zeros(nodes)
    for part, race in history.races():
        share[part.nodes] += race.inclusion(part.choosing)
    others = np.ones(nodes)
    others[single] = 0.0
    return np.vstack([np.eye(nodes)[single], others, others * share / max(share.max(), 1.0)])


def _uncorrelated(values: Floats, covariance: Floats) -> Floats:
    """Combine the k sums into l <= k uncorrelated sums of variance 1, float64 ``[l, k]``: a row for each of them.

    Sums that depend linearly on others are dropped.
    """
    sd = np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", values, covariance, values), 0.0))
    varying = np.flatnonzero(sd > 0)
    scaled = values[varying] / sd[varying, None]
    variances, directions = np.linalg.eigh(scaled @ covariance @ scaled.T)
    distinct = variances > PRECISION * max(len(varying), 1)
    found = np.zeros((int(distinct.sum()), len(values)))
    found[:, varying] = (directions[:, distinct] / np.sqrt(variances[distinct])).T / sd[varying]
    return found


def _explained_by_two(first: Floats, own: Floats, between: Floats) -> Floats:
    """Return the variance of each pair's overlap that a regression on its two nodes explains, float64 ``[m, m]``.

    Args:
        first: covariance of the overlap with the chunks on the first node, ``[m, m]``; its transpose has the covariance
            with the chunks on the second node.
        own: variance of the chunks on each node, ``[m]``.
        between: covariance of the chunks on two nodes, ``[m, m]``.
    """
    second = first.T
    determinant = own[:, None] * own - between**2
    distinct = determinant > 1e2 * PRECISION * own[:, None] * own
    squares = first**2 * own + second**2 * own[:, None] - 2 * first * second * between
    nothing = np.zeros_like(first)
    both = np.divide(squares, determinant, out=nothing.copy(), where=distinct)
    one = np.divide(first**2, own[:, None], out=nothing, where=np.broadcast_to(own[:, None] > 0, first.shape))
    return np.asarray(np.where(distinct, both, np.maximum(one, one.T)))
