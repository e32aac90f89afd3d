"""Weighted rendezvous hashing as a race: which nodes are among the first.

The score ``-w / ln u`` of a uniform u is ``w`` divided by an exponential variable. Nodes are therefore ranked as they
would arrive at independent times ``T ~ Exp(w)``, and a chunk's r replicas lie on the first r arrivals (Efraimidis and
Spirakis, Information Processing Letters 97, 2006). Let ``q = e^(-wt)`` and ``p = 1 - q``. The k nodes of a set A are
among the first r if at most r - k other nodes have arrived when the last node of A arrives:

    ``P(A) = integral of (sum over a in A of w_a q_a prod over b in A, not a, of p_b) P(N <= r - k) dt``

N, the number of arrivals outside A, has the generating function ``prod (q + pz)`` over all nodes, divided by the same
product over A. A discrete Fourier transform of the generating function at roots of unity gives the probabilities of N.
The number of roots is odd, so no ``q + pz`` is 0. All products are at most 1, so the division costs no digits. Only the
coefficients up to ``z^r`` are needed, and some 4 r roots on a smaller circle are enough for them (Cauchy's formula).
The price is an error: each coefficient then includes a higher one, whose power exceeds its own by the number of roots.
The radius of the circle makes this error 10^13 times smaller than the higher coefficient. The integral is the
trapezoidal rule in x for ``t = exp(x - e^(-x)) / sum w`` (Takahasi and Mori, Publ. RIMS 9, 1974), which converges
exponentially for all weights.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Complexes: TypeAlias = NDArray[np.complex128]
Replicas: TypeAlias = Mapping[int, float]
"""Number of replicas r → number of chunks that have r replicas."""

STEP = 0.2
"""Step of the trapezoidal rule. Probabilities are exact to 1e-13 for r up to 5, and to 1e-9 for 25 of 50 nodes."""

ROOTS_PER_REPLICA = 4
"""Roots of unity per replica. More roots than there are nodes are not used."""

ALIASING = 1e-13
"""If there are fewer roots than nodes, a coefficient includes this share of a higher coefficient, by error."""

FEW_ENTRIES = 1 << 18
"""Up to this many numbers (times x m x m), `_summed` computes the products of all times at once and then adds them."""

SMALL_PRODUCT = 1 << 17
"""The most multiplications in one product of matrices (see `_summed`)."""

FIRST = -3.6
"""The x at which the rule begins: t is then ``e^-40`` of the mean time of the first arrival."""

LAST = 40.0
"""The rule ends at a time by which one of the slowest m - r nodes has arrived with probability ``1 - e^-40``."""


class Race:
    """A race of nodes with given weights, evaluated at the times of the integration rule.

    All results are for a mixture of replica numbers, and linear in the mixture: ``{r: 1}`` gives probabilities,
    ``{r: chunks}`` gives expected numbers of chunks. Memory grows as m r, time as m^2 r.

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
        half = np.arange(roots // 2 + 1)  # the other roots are their conjugates
        self._root = radius * np.exp(2j * np.pi / roots * half)
        each = STEP * self._time * (1 + np.exp(-x))[:, None] * np.where(half == 0, 1, 2) / roots
        present = -np.expm1(-weights * self._time)[..., None]
        absent = np.exp(-weights * self._time)[..., None]
        factor = absent + present * self._root  # [times, m, roots], like _arriving and _arrived
        self._product = each * factor.prod(axis=1)
        self._arriving = weights[:, None] * absent / factor
        self._arrived = present / factor

    def inclusion(self, replicas: Replicas) -> Floats:
        """Chunks expected on each node, float64 ``[m]``."""
        return np.asarray(np.einsum("tz,taz->a", self._at_most(replicas, 1), self._arriving).real)

    def pairs(self, replicas: Replicas) -> Floats:
        """Chunks expected on both of two nodes, float64 ``[m, m]``; on the diagonal, on one node."""
        last = _summed(self._at_most(replicas, 2)[:, None] * self._arriving, self._arrived)
        both = np.asarray(last + last.T)
        np.fill_diagonal(both, self.inclusion(replicas))
        return both

    def pairs_with(self, replicas: Replicas, values: Floats) -> Floats:
        """For every two nodes, add up the values of the chunks that are expected on both.

        The value of a chunk is the sum of the ``values`` of all nodes that hold it.

        Args:
            replicas: r → chunks.
            values: a value for each node, float64 ``[m]``.

        Returns:
            float64 ``[m, m]``; on the diagonal, the sum over the chunks on one node.
        """
        weight = self._at_most(replicas, 3)[:, None]
        valued_arriving, valued_arrived = values[:, None] * self._arriving, values[:, None] * self._arrived
        # A third node is any other node that holds the chunk. The sums over third nodes are made over all nodes, so
        # they include the two nodes themselves. The next lines subtract the values of the two nodes; ``summed`` adds
        # their own values.
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

        Two nodes exchange a replica if one of them arrives as number r and the other right after it. Therefore the
        matrix is symmetric, its rows add up to 0, and all entries but the diagonal are negative: it is the Laplacian of
        a graph.
        """
        exactly = sum(chunks * self._root ** (1 - r) for r, chunks in replicas.items())
        tied = _summed((self._time * self._product * exactly)[:, None] * self._arriving, self._arriving)
        np.fill_diagonal(tied, 0.0)
        return np.asarray(np.diag(tied.sum(axis=1)) - tied)

    def _at_most(self, replicas: Replicas, size: int) -> Complexes:
        """Return factors ``[times, roots]``: sums weighted with them give probabilities of N <= r - ``size``."""
        kernel = np.zeros_like(self._root)
        for r, chunks in replicas.items():
            for others in range(r - size + 1):
                kernel += chunks * self._root**-others
        return np.asarray(self._product * kernel)


def _summed(left: Complexes, right: Complexes) -> Floats:
    """Sum products over times and roots, and take the real part: two arrays ``[times, m, roots]`` give ``[m, m]``.

    The work is done in many small products of real matrices. BLAS would compute large products in several threads. On
    busy cores, these threads wait for each other a hundred times as long as they work.
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
