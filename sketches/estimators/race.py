"""Weighted rendezvous hashing as a race: which nodes are among the first.

The score ``-w / ln u`` of a uniform u is ``w`` by an exponential variable: nodes are ranked as they would arrive at
independent times ``T ~ Exp(w)``, and a chunk's r replicas lie on the first r arrivals (Efraimidis and Spirakis,
Information Processing Letters 97, 2006). With ``q = e^(-wt)`` and ``p = 1 - q``, k nodes A are among them if, when the
last of A arrives, no more than r - k others have:

    ``P(A) = integral of (sum over a in A of w_a q_a prod over b in A, not a, of p_b) P(N <= r - k) dt``

N, the number of arrivals outside A, has the generating function ``prod (q + pz)`` over all nodes, divided by that over
A. Its distribution is the Fourier transform over roots of unity. Their number is odd: no ``q + pz`` is then 0, and as
all the products are at most 1, the division costs no digits. Only the coefficients up to ``z^r`` are needed, for which
some 4 r roots on a smaller circle do (Cauchy's formula; a coefficient is mistaken for one that is so many powers
higher, which the radius makes 10^13 times smaller). The integral is the trapezoidal rule in x for
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

ROOTS_PER_REPLICA = 4
"""Roots of unity per replica, where there are no fewer nodes."""

ALIASING = 1e-13
"""Share of a coefficient that is mistaken for another one where there are fewer roots than nodes."""

FEW_ENTRIES = 1 << 18
"""Up to so many numbers, the products of all times are made at once and then summed."""

SMALL_PRODUCT = 1 << 17
"""A product of matrices has at most so many multiplications."""

FIRST = -3.6
"""Where the rule begins, at ``e^-40`` of the time that the first arrival takes."""

LAST = 40.0
"""The rule ends when those who did not arrive would have done so with probability ``1 - e^-40``."""


class Race:
    """Nodes of given weights, and the times at which to look at them.

    All results are for a mixture of replica numbers and linear in it: ``{r: 1}`` gives probabilities, ``{r: chunks}``
    expected numbers of chunks. Memory grows as m r, time as m^2 r.

    Attributes:
        weights: float64 ``[m]``, above 0.
    """

    def __init__(self, weights: Floats, most: int) -> None:
        """Prepare for chunks of up to ``most`` replicas, 1 to m - 1."""
        self.weights = weights
        total, left = weights.sum(), np.sort(weights)[: len(weights) - most].sum()
        x = np.arange(FIRST, np.log(LAST * total / left) + STEP, STEP)
        self._time = np.exp(x - np.exp(-x))[:, None] / total
        roots = min(len(weights) | 1, ROOTS_PER_REPLICA * most | 1)
        radius = 1.0 if roots >= len(weights) else ALIASING ** (1 / roots)
        half = np.arange(roots // 2 + 1)  # the others are conjugate
        self._root = radius * np.exp(2j * np.pi / roots * half)
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
        last = _summed(self._at_most(replicas, 2)[:, None] * self._arriving, self._arrived)
        both = np.asarray(last + last.T)
        np.fill_diagonal(both, self.inclusion(replicas))
        return both

    def pairs_with(self, replicas: Replicas, values: Floats) -> Floats:
        """The sum of ``values`` over all nodes of each chunk, summed over the chunks expected on both of two nodes.

        Args:
            replicas: r → chunks.
            values: of each node, float64 ``[m]``.

        Returns:
            float64 ``[m, m]``; the diagonal is each node with itself.
        """
        weight = self._at_most(replicas, 3)[:, None]
        valued_arriving, valued_arrived = values[:, None] * self._arriving, values[:, None] * self._arrived
        # Sums over the third node include the first two, which are taken off: values[a] and values[b] come back below.
        arrived = weight * (valued_arrived.sum(axis=1, keepdims=True) - valued_arrived)
        last = _summed(arrived * self._arriving, self._arrived)
        last -= _summed(weight * self._arriving, self._arrived * valued_arrived)
        third = weight * valued_arriving.sum(axis=1, keepdims=True) * self._arrived
        both = _summed(third, self._arrived) - _summed(weight * valued_arriving * self._arrived, self._arrived)
        both -= _summed(weight * self._arrived, valued_arriving * self._arrived)
        two = self.pairs(replicas)
        summed = np.asarray(last + last.T + both + (values[:, None] + values) * two)
        np.fill_diagonal(summed, two @ values)
        return summed

    def sensitivity(self, replicas: Replicas) -> Floats:
        """The derivative of `inclusion` by the logarithms of the weights, float64 ``[m, m]``.

        Two nodes exchange a replica where one of them arrives as number r and the other right after it; hence the
        matrix is symmetric, its rows add up to 0, and all but its diagonal is negative: the Laplacian of a graph.
        """
        exactly = sum(chunks * self._root ** (1 - r) for r, chunks in replicas.items())
        tied = _summed((self._time * self._product * exactly)[:, None] * self._arriving, self._arriving)
        np.fill_diagonal(tied, 0.0)
        return np.asarray(np.diag(tied.sum(axis=1)) - tied)

    def _at_most(self, replicas: Replicas, size: int) -> Complexes:
        """What makes sums over time and roots probabilities that N <= r - k, for k = ``size``: ``[times, roots]``."""
        kernel = np.zeros_like(self._root)
        for r, chunks in replicas.items():
            for others in range(r - size + 1):
                kernel += chunks * self._root**-others
        return np.asarray(self._product * kernel)


def _summed(left: Complexes, right: Complexes) -> Floats:
    """Sum products over times and roots, and take the real part: twice ``[times, m, roots]`` to ``[m, m]``.

    As many small products of real matrices: BLAS would compute large ones in several threads, which wait for each other
    a hundred times as long as they work where cores are busy.
    """
    times, nodes, roots = left.shape
    ones, others = left.conj().view(np.float64), right.view(np.float64).swapaxes(1, 2)
    if times * nodes**2 <= FEW_ENTRIES:
        return np.asarray((ones @ others).sum(axis=0))
    total = np.zeros((nodes, nodes))
    rows = max(SMALL_PRODUCT // (2 * nodes * roots), 1)
    for one, other in zip(ones, others, strict=True):
        for start in range(0, nodes, rows):
            total[start : start + rows] += one[start : start + rows] @ other
    return total
