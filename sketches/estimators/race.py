"""Weighted rendezvous hashing as a race: which nodes are among the first.

The score ``-w / ln u`` of a uniform u is ``w`` by an exponential variable: nodes are ranked as they would arrive at
independent times ``T ~ Exp(w)``, and a chunk's r replicas lie on the first r arrivals (Efraimidis and Spirakis,
Information Processing Letters 97, 2006). With ``q = e^(-wt)`` and ``p = 1 - q``, k nodes A are among them if, when the
last of A arrives, no more than r - k others have:

    ``P(A) = integral of (sum over a in A of w_a q_a prod over b in A, not a, of p_b) P(N <= r - k) dt``

N, the number of arrivals outside A, has the generating function ``prod (q + pz)`` over all nodes, divided by that over
A. Its distribution is the Fourier transform over m or m + 1 roots of unity, an odd number: no ``q + pz`` is then 0, and
as all the products are at most 1, the division costs no digits. The integral is the trapezoidal rule in x for
``t = exp(x - e^(-x)) / sum w`` (Takahasi and Mori, Publ. RIMS 9, 1974), which converges exponentially whatever the
weights.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Complexes: TypeAlias = NDArray[np.complex128]
Replicas: TypeAlias = Mapping[int, float]
"""Number of replicas → how many chunks have so many."""

STEP = 0.2
"""Of the trapezoidal rule. Probabilities are exact to 1e-13 for r up to 5, and 1e-9 for 25 of 50 nodes."""

FIRST = -3.6
"""Where the rule begins, at ``e^-40`` of the time that the first arrival takes."""

LAST = 40.0
"""The rule ends when those who did not arrive would have done so with probability ``1 - e^-40``."""

PRECISION = 1e-10
"""Of fitted shares, which are kept ten times as far from 0 and 1: their weights would be 0 and infinite."""

LEAST_WEIGHT = 1e-12
"""Relative to the largest."""

RIDGE = 1e-14
"""Keeps the equations solvable where nodes have nothing to exchange."""

MAX_FITTING_STEPS = 50
MAX_HALVINGS = 10
PROGRESS = 0.99
"""A step must leave at most so much of the sum of squared gaps; else what is left cannot be closed."""

LONGEST_STEP = 4.0
"""Of a fitted log weight."""


class Race:
    """Nodes of given weights, and the times at which to look at them.

    All results are for a mixture of replica numbers and linear in it: ``{r: 1}`` gives probabilities, ``{r: chunks}``
    expected numbers of chunks.

    Attributes:
        weights: float64 ``[m]``, above 0.
    """

    def __init__(self, weights: Floats, most: int) -> None:
        """Prepare for chunks of up to ``most`` replicas, 1 to m - 1."""
        self.weights = weights
        total, left = weights.sum(), np.sort(weights)[: len(weights) - most].sum()
        x = np.arange(FIRST, np.log(LAST * total / left) + STEP, STEP)
        self._time = np.exp(x - np.exp(-x))[:, None] / total
        roots = len(weights) | 1
        half = np.arange(roots // 2 + 1)  # the others are conjugate
        self._root = np.exp(2j * np.pi / roots * half)
        each = STEP * self._time * (1 + np.exp(-x))[:, None] * np.where(half == 0, 1, 2) / roots
        present = -np.expm1(-weights * self._time)[..., None]
        absent = np.exp(-weights * self._time)[..., None]
        factor = absent + present * self._root  # [times, m, roots], as the next two
        self._product = each * factor.prod(axis=1)
        self._arriving = weights[:, None] * absent / factor
        self._arrived = present / factor

    def inclusion(self, replicas: Replicas) -> Floats:
        """Chunks expected on each node, float64 ``[m]``."""
        return np.asarray(np.einsum("tz,taz->a", self._at_most(replicas, 1), self._arriving).real)

    def pairs(self, replicas: Replicas) -> Floats:
        """Chunks expected on both of two nodes, float64 ``[m, m]``; the diagonal is each node with itself."""
        last = _summed(self._at_most(replicas, 2)[:, None] * self._arriving, self._arrived).sum(axis=0)
        both = np.asarray(last + last.T)
        np.fill_diagonal(both, self.inclusion(replicas))
        return both

    def triples(self, replicas: Replicas) -> Floats:
        """Chunks expected on all of three nodes, not necessarily distinct, float64 ``[m, m, m]``."""
        nodes = len(self.weights)
        last = np.zeros((nodes, nodes, nodes))
        # All times at once would need as many times the memory.
        for weight, arriving, arrived in zip(self._at_most(replicas, 3), self._arriving, self._arrived, strict=True):
            last += _summed((weight * arriving)[:, None] * arrived, arrived)
        three = last + last.swapaxes(0, 1) + last.swapaxes(0, 2)
        node, two = np.arange(nodes), self.pairs(replicas)
        three[node, node] = three[node, :, node] = two
        three[:, node, node] = two
        return three

    def sensitivity(self, replicas: Replicas) -> Floats:
        """The derivative of `inclusion` by the logarithms of the weights, float64 ``[m, m]``.

        Two nodes exchange a replica where one of them arrives as number r and the other right after it; hence the
        matrix is symmetric, its rows add up to 0, and all but its diagonal is negative: the Laplacian of a graph.
        """
        exactly = sum(chunks * self._root ** (1 - r) for r, chunks in replicas.items())
        tied = _summed((self._time * self._product * exactly)[:, None] * self._arriving, self._arriving).sum(axis=0)
        np.fill_diagonal(tied, 0.0)
        return np.asarray(np.diag(tied.sum(axis=1)) - tied)

    def _at_most(self, replicas: Replicas, size: int) -> Complexes:
        """What makes sums over time and roots probabilities that N <= r - k, for k = ``size``: ``[times, roots]``."""
        kernel = np.zeros_like(self._root)
        for r, chunks in replicas.items():
            for others in range(r - size + 1):
                kernel += chunks * self._root**-others
        return np.asarray(self._product * kernel)


def fitted_race(replicas: Replicas, held: Floats) -> Race:
    """The race in which nodes are expected to hold as many chunks as they do.

    `Race.inclusion` is the gradient, by the log weights, of a convex function: the expected sum of the r largest of
    independent Gumbel variables located at them (their order is that of the race). There is one solution, but for
    scale, and Newton's method finds it, from the weights that would fit if nodes took chunks independently.

    Args:
        replicas: r, 1 to m - 1 → chunks; at least one chunk.
        held: chunks on each node, ``[m]``. What no placement could bring about is fitted as far as it goes.
    """
    chunks = sum(replicas.values())
    mixture = {r: count / chunks for r, count in replicas.items()}
    share = _possible(held / chunks, sum(r * part for r, part in mixture.items()))
    race = Race(-np.log1p(-share), max(mixture))
    gap = share - race.inclusion(mixture)
    for _ in range(MAX_FITTING_STEPS):
        if np.abs(gap).max() < PRECISION:
            break
        # The weights' common scale is free: one more equation has it stay.
        equations = race.sensitivity(mixture) + 1 + RIDGE * np.eye(len(gap))
        step = np.clip(np.linalg.solve(equations, gap), -LONGEST_STEP, LONGEST_STEP)
        for _ in range(MAX_HALVINGS):
            weights = race.weights * np.exp(step)
            closer = Race(np.maximum(weights / weights.max(), LEAST_WEIGHT), max(mixture))
            left = share - closer.inclusion(mixture)
            if left @ left < PROGRESS * (gap @ gap):
                break
            step /= 2
        else:
            break
        race, gap = closer, left
    return race


def _possible(share: Floats, total: float) -> Floats:
    """The shares, brought to within 0 and 1 and to their sum, and away from 0 and 1 by 10 `PRECISION`."""
    share = np.clip(share, 0.0, 1.0)
    lack = total - share.sum()
    if lack > 0:
        share += (1 - share) * (lack / (1 - share).sum())
    elif lack < 0:
        share *= total / share.sum()
    return np.asarray(share + 10 * PRECISION * (total / len(share) - share))


def _summed(left: Complexes, right: Complexes) -> Floats:
    """Sum products over the roots, and take the real part: ``[..., a, roots]``, ``[..., b, roots]`` to ``[..., a, b]``.

    As many small products of real matrices: BLAS would compute large ones in several threads, which wait for each other
    a hundred times as long as they work where cores are busy.
    """
    return np.asarray(left.conj().view(np.float64) @ right.view(np.float64).swapaxes(-1, -2))
