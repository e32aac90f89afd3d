"""Exact means, variances and the covariance of union and intersection."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple, Self


@dataclass(frozen=True)
class Moments:
    """Mean and variance of a random quantity, and the normal distribution that has them.

    Attributes:
        mean: expectation.
        variance: square of the standard deviation.
        support: the least and the greatest value that the quantity can take.
    """

    mean: float
    variance: float
    support: tuple[float, float]

    @property
    def sd(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.variance)

    def interval(self, coverage: float = 0.95) -> tuple[float, float]:
        """Return the central interval of the normal approximation, cut to the support.

        From a standard deviation of 3 on, the 95 % intervals of union and intersection cover 93 to 97 %, because whole
        numbers come in steps. If the standard deviation is smaller than that, use `Distribution.interval`.

        Args:
            coverage: the probability that the interval should have.

        Raises:
            ValueError: not ``0 < coverage < 1``.
        """
        half = self.sd * NormalDist().inv_cdf((1 + checked_coverage(coverage)) / 2)
        lowest, highest = self.support
        return min(max(lowest, self.mean - half), highest), max(min(highest, self.mean + half), lowest)


class Covered(NamedTuple):
    """Moments of the number of elements that at least one of some parties holds.

    Attributes:
        held: expected number of elements that at least one party holds.
        missed: expected number of elements that no party holds. Both numbers are stored, because either of them may be
            tiny compared with the other.
        variance: variance of each of the two numbers, which add up to the population.
    """

    held: float
    missed: float
    variance: float

    def and_party(self, population: int, size: int) -> Self:
        """Add a party that holds ``size`` elements.

        Derived here: the newcomer misses E' of the E missed elements. E' is hypergeometric with mean ``bE`` and
        variance ``b(1-b)E(N-E)/(N-1)``, ``b = 1 - size/N``; so ``Var E' = b² Var E + b(1-b) E[E(N-E)]/(N-1)``. The
        second expectation is held * missed - Var E, and Var E is at most held * missed / N. So nearly equal numbers are
        never subtracted from each other, and no digits are lost, however large the numbers are.
        """
        missing = (population - size) / population
        pairs = self.held * self.missed - self.variance
        drawn = size / population * missing * pairs / max(population - 1, 1)
        return type(self)(self.held * missing + size, self.missed * missing, missing**2 * self.variance + drawn)


def checked_sizes(population: int, sizes: Sequence[int]) -> list[int]:
    """Return the sizes as Python integers, which neither overflow nor round.

    Raises:
        ValueError: the population is empty, or a size is not between 0 and the population.
        TypeError: a number is not an integer.
    """
    if operator.index(population) < 1:
        raise ValueError(f"a population has at least one element, not {population}")
    integers = [operator.index(size) for size in sizes]
    for size in integers:
        if not 0 <= size <= population:
            raise ValueError(f"a party cannot hold {size} of {population} elements")
    return integers


def checked_coverage(coverage: float) -> float:
    """Return ``coverage`` if it is a probability strictly between 0 and 1.

    Raises:
        ValueError: not ``0 < coverage < 1``.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"the coverage of an interval lies between 0 and 1, not at {coverage}")
    return coverage


def union(population: int, sizes: Sequence[int]) -> Moments:
    """Exact moments of the number of elements that at least one party holds.

    The moments are ``E U = N(1-q)`` and ``Var U = Nq(1-q) + N(N-1)(q₂ - q²)``. Here ``q = Π(1 - n_i/N)`` is the
    probability that all parties miss an element, and ``q₂ = Π (N-n_i)(N-n_i-1)/(N(N-1))`` that they miss a pair of
    elements. The difference ``q₂ - q²`` loses every digit where parties are small, so the code uses the form of
    ``Covered.and_party``.

    Args:
        population: N, elements in all, at least 1.
        sizes: ``n_i``, elements that each party holds, shape ``[m]``; ``m = 0`` is allowed.

    Returns:
        The mean in elements, and the variance in elements squared. The relative error of both is about ``m`` times the
        error of one rounding, for any N below 2⁵³.

    Raises:
        ValueError: the population is empty, or a size is not between 0 and the population.
    """
    integers = checked_sizes(population, sizes)
    covered = Covered(0.0, float(population), 0.0)
    for size in integers:
        covered = covered.and_party(population, size)
    least, most = max(integers, default=0), min(population, sum(integers))
    return Moments(covered.held, covered.variance, (least, most))


def intersection(population: int, sizes: Sequence[int]) -> Moments:
    """Exact moments of the number of elements that every party holds.

    An element that not every party holds lies in the union of the complements, so the intersection is
    ``N - U(N - n_i)``. With the probabilities ``p = Π n_i/N`` and ``p₂ = Π n_i(n_i-1)/(N(N-1))``, the moments are
    ``E I = Np`` and ``Var I = Np(1-p) + N(N-1)(p₂ - p²)``.

    Args:
        population: N, elements in all, at least 1.
        sizes: ``n_i``, elements that each party holds, shape ``[m]``; the intersection of no parties is the population.

    Returns:
        Moments in elements, as accurate as those of the union.

    Raises:
        ValueError: the population is empty, or a size is not between 0 and the population.
    """
    covered = Covered(0.0, float(population), 0.0)
    complements = [population - size for size in checked_sizes(population, sizes)]
    for complement in complements:
        covered = covered.and_party(population, complement)
    least, most = max(0, population - sum(complements)), population - max(complements, default=0)
    return Moments(covered.missed, covered.variance, (least, most))


def union_intersection_covariance(population: int, sizes: Sequence[int]) -> float:
    """Exact covariance of union and intersection, never positive; 0 for fewer than two parties.

    Derived here: the probability that all parties hold x and miss y is ``pq (N/(N-1))^m``. The sum of this probability
    over the ordered pairs, less ``E I · E(N-U) = N²pq``, is ``-Cov = N²pq [(N/(N-1))^(m-1) - 1]``.

    Args:
        population: N, elements in all, at least 1.
        sizes: ``n_i``, elements that each party holds, shape ``[m]``.

    Raises:
        ValueError: the population is empty, or a size is not between 0 and the population.
    """
    integers = checked_sizes(population, sizes)
    if len(integers) < 2 or population == 1:
        return 0.0
    held_by_all = population * math.prod(size / population for size in integers)
    held_by_none = population * math.prod((population - size) / population for size in integers)
    return -held_by_all * held_by_none * math.expm1((len(integers) - 1) * math.log1p(1 / (population - 1)))
