"""The similarity of random sets: the Jaccard index, intersection over union."""

from collections.abc import Sequence

from sketches.occ.distribution import intersection_pmf
from sketches.occ.moments import Moments, checked_sizes, intersection, union, union_intersection_covariance


def jaccard(population: int, sizes: Sequence[int]) -> Moments:
    """Moments of the Jaccard index ``J = I/U``: exact for one or two parties, or with a party that holds nothing.

    For two parties U = n₁ + n₂ - I, and J is a function of the hypergeometric I. For more parties the delta method is
    used, to second order for the mean and to first order for the variance: with ``j = E I / E U``,
    ``E J ≈ j + (j Var U - Cov(U, I))/(E U)²`` and ``Var J ≈ (Var I + j² Var U - 2j Cov(U, I))/(E U)²``. Compared with
    exact enumeration, the relative error of the mean is below ``(m/E U)²`` and that of the variance below ``m/E U``.
    Both approximations are usually too low. They are good when the union is large compared with the number of parties.

    Args:
        population: N, elements in all, at least 1.
        sizes: ``n_i``, elements that each party holds, shape ``[m]``, ``m >= 1``. If all sizes are 0, J is 1.

    Returns:
        Moments, dimensionless.

    Raises:
        ValueError: there is no party, the population is empty, or a size is not between 0 and the population.
    """
    integers = checked_sizes(population, sizes)
    if not integers:
        raise ValueError("without a party there is no Jaccard index")
    if len(integers) == 1 or max(integers) == 0:
        return Moments(1.0, 0.0, (1.0, 1.0))
    both, either = intersection(population, integers), union(population, integers)
    support = (both.support[0] / either.support[1], both.support[1] / either.support[0])
    if len(integers) == 2:
        return Moments(*_of_two(population, integers), support)
    covariance = union_intersection_covariance(population, integers)
    ratio, square = both.mean / either.mean, either.mean**2
    mean = ratio + (ratio * either.variance - covariance) / square
    variance = (both.variance + ratio**2 * either.variance - 2 * ratio * covariance) / square
    return Moments(mean, variance, support)


def _of_two(population: int, sizes: list[int]) -> tuple[float, float]:
    """Exact mean and variance for two parties, of which at least one holds an element."""
    both = intersection_pmf(population, sizes)
    index = both.values / (sum(sizes) - both.values)
    mean = float(both.probabilities @ index)
    return mean, float(both.probabilities @ (index - mean) ** 2)
