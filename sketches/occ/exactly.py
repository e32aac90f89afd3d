"""The number of elements that exactly k parties hold: mean vector and covariance matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketches.occ.moments import Moments, checked_sizes


@dataclass(frozen=True, eq=False)
class HeldByExactly:
    """Moments of the numbers of elements that exactly k = 0 … m parties hold.

    The classes add up to N and, weighted by k, to Σ n_i, so the covariance matrix has two null vectors at least.

    Attributes:
        mean: expected number of elements in each class, shape ``[m + 1]``.
        covariance: covariance matrix of the classes, shape ``[m + 1, m + 1]``.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def weighted(self, weights: ArrayLike) -> Moments:
        """Return the moments of a weighted sum of the classes.

        Weights ``[1, 1, 1, 0, …]``, say, count the elements that fewer than three parties hold.

        Args:
            weights: one per class, shape ``[m + 1]``.

        Raises:
            ValueError: there are not ``m + 1`` weights.
        """
        values = np.asarray(weights, np.float64)
        if values.shape != self.mean.shape:
            raise ValueError(f"{len(self.mean)} classes need as many weights, not the shape {values.shape}")
        population, mean = float(self.mean.sum()), float(values @ self.mean)
        centred = values - mean / population  # a constant only changes the rounding, as the classes add up to N
        variance = max(float(centred @ self.covariance @ centred), 0.0)
        return Moments(mean, variance, (population * float(values.min()), population * float(values.max())))


def held_by_exactly(population: int, sizes: Sequence[int]) -> HeldByExactly:
    """Exact moments of the numbers of elements that exactly k = 0 … m parties hold.

    Derived here, party by party. A newcomer of n elements draws X from the classes C. X is multivariate hypergeometric
    with mean ``aC`` and covariance ``a(1-a)/(N-1) · (N diag C - C Cᵀ)``, where ``a = n/N``. The drawn elements move up
    one class (shift S): ``C' = ((1-a)I + aS) C + (S - I)(X - aC)``. The law of total variance gives the moments, in
    O(m³) and without a difference of numbers of the order N². The mean is N times the Poisson-binomial distribution of
    the ``n_i/N``.

    Args:
        population: N, elements in all, at least 1.
        sizes: ``n_i``, elements that each party holds, shape ``[m]``; ``m = 0`` is allowed.

    Raises:
        ValueError: the population is empty, or a size is not between 0 and the population.
    """
    integers = checked_sizes(population, sizes)
    classes = len(integers) + 1
    stay, rise = np.eye(classes), np.eye(classes, k=-1)
    mean, covariance = population * stay[0], np.zeros((classes, classes))
    for size in integers:
        drawn, left = size / population, (population - size) / population
        moved = left * stay + drawn * rise
        draws = drawn * left / max(population - 1, 1) * _draws(mean, covariance)
        covariance = moved @ covariance @ moved.T + (rise - stay) @ draws @ (rise - stay).T
        mean = moved @ mean
    return HeldByExactly(mean, (covariance + covariance.T) / 2)


def _draws(mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """``E[N diag C - C Cᵀ]``. The rows of this matrix add up to zero, because the classes add up to N."""
    pairs = np.outer(mean, mean)
    np.fill_diagonal(pairs, 0.0)  # N C_k - C_k² = Σ C_k C_l over the other classes: no digits cancel
    return np.diag(pairs.sum(axis=1)) - pairs - covariance
