"""Probabilities of every size of the union and of the intersection."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sketches.occ.moments import Covered, checked_coverage, checked_sizes

TAIL = 40.0
"""The values that a distribution leaves out on either side have a total probability below e^-40 = 4·10⁻¹⁸."""

WORKING_TAIL = 70.0
"""While parties are added, only tails below e^-70 are left out. They are too small to change the result."""


@dataclass(frozen=True, eq=False)
class Distribution:
    """Probabilities of consecutive integers.

    Attributes:
        first: the integer that ``probabilities[0]`` belongs to.
        probabilities: float64, shape ``[values]``; they add up to 1.
    """

    first: int
    probabilities: NDArray[np.float64]

    @property
    def values(self) -> NDArray[np.int64]:
        """The integers, in the shape of ``probabilities``."""
        return np.arange(self.first, self.first + len(self.probabilities))

    @property
    def mean(self) -> float:
        """Expectation."""
        return self.first + float(self.probabilities @ np.arange(len(self.probabilities)))

    @property
    def variance(self) -> float:
        """Square of the standard deviation."""
        offsets = np.arange(len(self.probabilities))  # offsets are small; large values would cost digits
        return float(self.probabilities @ (offsets - self.probabilities @ offsets) ** 2)

    def interval(self, coverage: float = 0.95) -> tuple[int, int]:
        """Return the central interval: beyond either end lies a probability of at most ``(1 - coverage)/2``.

        Args:
            coverage: the least probability that the interval should have.

        Raises:
            ValueError: not ``0 < coverage < 1``.
        """
        outside = (1 - checked_coverage(coverage)) / 2
        below = np.searchsorted(np.cumsum(self.probabilities), outside, side="right")
        above = np.searchsorted(np.cumsum(self.probabilities[::-1]), outside, side="right")
        return self.first + int(below), self.first + len(self.probabilities) - 1 - int(above)


def union_pmf(population: int, sizes: Sequence[int]) -> Distribution:
    """Exact distribution of the number of elements that at least one party holds.

    Derived here: if u elements are held, a party of n brings d new ones with probability
    ``C(N-u, d) C(u, n-d) / C(N, n)``. Up to a constant, this is ``u!(N-u)! · C(n, d) / ((N-u')!(u'-n)!)`` with
    ``u' = u + d``. Adding a party therefore multiplies by weights, convolves, and multiplies by weights again; every
    term is positive. Exponential factors (a tilt) keep all three sequences of weights flat around the means; they
    cancel in the end. The weights are built from ratios of neighbours, because factorials of large numbers would lose
    digits.

    Args:
        population: N, elements in all, at least 1.
        sizes: ``n_i``, elements that each party holds, shape ``[m]``; ``m = 0`` is allowed.

    Returns:
        The distribution of all sizes, except tails of a probability below 10⁻¹⁷ together. The distribution reaches some
        9 standard deviations and 13 to 27 elements to either side. Each probability has a relative error below 10⁻¹¹
        (except for underflow). Each party takes a convolution of two bands: at most 2 ms at N = 10⁵, and in proportion
        to N. One or two parties are fast at any N.

    Raises:
        ValueError: the population is empty, or a size is not between 0 and the population.
    """
    largest, *others = sorted(checked_sizes(population, sizes), reverse=True) or [0]
    first, logarithms = largest, np.zeros(1)
    covered = Covered(0.0, float(population), 0.0).and_party(population, largest)
    if largest < population:
        for size in filter(None, others):
            first, logarithms = _and_party(first, logarithms, covered, population, size)
            covered = covered.and_party(population, size)
    low, high = _band(covered.held, covered.variance, TAIL)
    probabilities = _scaled(logarithms[max(low - first, 0) : high - first + 1])
    return Distribution(max(low, first), probabilities / probabilities.sum())


def intersection_pmf(population: int, sizes: Sequence[int]) -> Distribution:
    """Exact distribution of the number of elements that every party holds, from the union of the complements.

    Args:
        population: N, elements in all, at least 1.
        sizes: ``n_i``, elements that each party holds, shape ``[m]``; the intersection of no parties is the population.

    Returns:
        The distribution, as from `union_pmf`.

    Raises:
        ValueError: the population is empty, or a size is not between 0 and the population.
    """
    complements = union_pmf(population, [population - size for size in checked_sizes(population, sizes)])
    last = complements.first + len(complements.probabilities) - 1
    return Distribution(population - last, complements.probabilities[::-1])


def _and_party(
    first: int, logarithms: NDArray[np.float64], covered: Covered, population: int, size: int
) -> tuple[int, NDArray[np.float64]]:
    """Add a party of ``size``, neither 0 nor N, to the elements held.

    Args:
        first: the number of elements held that ``logarithms[0]`` belongs to.
        logarithms: logarithms of the probabilities of the numbers of elements held, up to a constant, ``[values]``.
        covered: the moments of the elements held.
        population: N.
        size: n.

    Returns:
        The new ``first`` and ``logarithms``.
    """
    # The new elements are missed by the other parties and by the complement of the newcomer: the same theory bounds
    # their number.
    new = covered.and_party(population, population - size)
    least, most = _band(new.missed, new.variance, WORKING_TAIL)
    least, most = max(least, 0), min(most, size, population - first)
    after = covered.and_party(population, size)
    low, high = _band(after.held, after.variance, WORKING_TAIL)
    low, high = max(low, first + least), min(high, first + len(logarithms) - 1 + most, population)

    odds = math.log(max(covered.missed, 1e-300) / covered.held)  # any tilt is right; missed may underflow to 0
    u, d, sums = np.arange(first, first + len(logarithms) - 1), np.arange(least, most), np.arange(low, high)
    before = _scaled(logarithms + _cumulated(np.log((u + 1) / (population - u)) + odds))
    kernel = _scaled(_cumulated(np.log((size - d) / (d + 1)) + odds))
    convolved = np.convolve(before, kernel)[low - first - least : high - first - least + 1]
    with np.errstate(divide="ignore"):  # a probability that has underflowed stays 0
        return low, np.log(convolved) + _cumulated(np.log((population - sums) / (sums + 1 - size)) - odds)


def _cumulated(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithms of a sequence that begins with 1; ``steps`` are the logarithms of the ratios of neighbours."""
    return np.concatenate(([0.0], np.cumsum(steps)))


def _scaled(logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
    """The exponentials, divided by the greatest of them."""
    exponentials: NDArray[np.float64] = np.exp(logarithms - logarithms.max())
    return exponentials


def _band(mean: float, variance: float, tail: float) -> tuple[int, int]:
    """First and last integer of a band around the mean that leaves out at most e^-tail on either side (Bernstein)."""
    reach = tail / 3 + math.sqrt((tail / 3) ** 2 + 2 * tail * variance)
    return math.floor(mean - reach), math.ceil(mean + reach)
