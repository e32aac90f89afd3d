"""Overlaps of large random sets, compared with exact arithmetic, other formulas and simulation."""

import math
import time
from collections import defaultdict
from decimal import Decimal, localcontext
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from sketches import occ

BILLION = 10**9
EXTREMES = [
    (1, 1),
    (3, 2),
    (BILLION // 2, 1),
    (BILLION // 2, BILLION // 2),
    (BILLION - 1, 1, 10**4),
    (1, 1, 1),
    (123_456_789, 987_654_321, 31_415, 271_828_182),
    (BILLION - 2, BILLION - 1, BILLION - 5),
    (BILLION // 3,) * 5,
    (BILLION, 5, 0),
]


def chances(population: int, sizes: tuple[int, ...]) -> tuple[list[Fraction], list[list[Fraction]]]:
    """Return the probability that exactly k parties hold an element, and that k hold one element and l hold another.

    The lists have the shapes ``[m + 1]`` and ``[m + 1, m + 1]`` for m parties.
    """
    single, pair = {0: Fraction(1)}, {(0, 0): Fraction(1)}
    for size in sizes:
        grown: defaultdict[int, Fraction] = defaultdict(Fraction)
        grown_pair: defaultdict[tuple[int, int], Fraction] = defaultdict(Fraction)
        for one, of_one in ((0, population - size), (1, size)):
            chance = Fraction(of_one, population)
            for k, before in single.items():
                grown[k + one] += before * chance
            for two, of_two in ((0, population - size - (1 - one)), (1, size - one)):
                for (k, other), before in pair.items():
                    grown_pair[k + one, other + two] += before * chance * Fraction(of_two, population - 1)
        single, pair = grown, grown_pair
    classes = range(len(sizes) + 1)
    return [single[k] for k in classes], [[pair[k, other] for other in classes] for k in classes]


@pytest.mark.parametrize("sizes", EXTREMES)
def test_moments_of_a_billion_in_exact_arithmetic(sizes: tuple[int, ...]) -> None:
    single, pair = chances(BILLION, sizes)
    means = [BILLION * chance for chance in single]
    covariance = [
        [
            (mean if k == other else 0) + BILLION * (BILLION - 1) * pair[k][other] - mean * means[other]
            for other in range(len(means))
        ]
        for k, mean in enumerate(means)
    ]
    union, intersection = occ.union(BILLION, sizes), occ.intersection(BILLION, sizes)
    expected = [BILLION - means[0], covariance[0][0], means[-1], covariance[-1][-1], -covariance[0][-1]]
    figures = [union.mean, union.variance, intersection.mean, intersection.variance]
    figures.append(occ.union_intersection_covariance(BILLION, sizes))
    assert figures == pytest.approx([float(number) for number in expected], rel=1e-14, abs=0)

    exactly = occ.held_by_exactly(BILLION, sizes)
    assert exactly.mean == pytest.approx(np.array(means, np.float64), rel=1e-14, abs=0)
    deviations = np.sqrt(np.array([float(covariance[k][k]) for k in range(len(means))]))
    errors = np.abs(exactly.covariance - np.array(covariance, np.float64))
    assert (errors <= 1e-12 * np.outer(deviations, deviations)).all()


def union_configurations(population: int, sizes: tuple[int, ...]) -> tuple[dict[int, int], int]:
    """Return how many configurations have each size of the union, and how many configurations there are."""
    ways = {0: 1}
    for size in sizes:
        grown: defaultdict[int, int] = defaultdict(int)
        for held, count in ways.items():
            for new in range(max(0, size - held), min(size, population - held) + 1):
                drawn = math.comb(population - held, new) * math.comb(held, size - new)
                grown[held + new] += count * drawn
        ways = grown
    return ways, math.prod(math.comb(population, size) for size in sizes)


@pytest.mark.parametrize(
    ("population", "sizes"),
    [
        (1000, (300, 200, 100)),
        (600, (60, 50, 40, 30, 20, 10)),
        (400, (200, 1, 7, 390)),
        (500, (480, 490, 470, 499)),
        (300, (299, 299, 299)),
        (300, (20, 300, 4)),
        (500, (25,) * 8),
    ],
)
def test_every_probability_of_the_union_in_exact_arithmetic(population: int, sizes: tuple[int, ...]) -> None:
    ways, total = union_configurations(population, sizes)
    distribution = occ.union_pmf(population, sizes)
    exact = [float(Fraction(ways.get(value, 0), total)) for value in distribution.values.tolist()]
    assert distribution.probabilities == pytest.approx(exact, rel=1e-12, abs=0)
    low, high = distribution.first, int(distribution.values[-1])
    assert Fraction(sum(count for value, count in ways.items() if not low <= value <= high), total) < 1e-17


@pytest.mark.parametrize(("population", "one", "two"), [(1000, 400, 300), (5000, 70, 4000), (2000, 1999, 3)])
def test_two_parties_are_hypergeometric(population: int, one: int, two: int) -> None:
    distribution = occ.intersection_pmf(population, [one, two])
    ways = [math.comb(one, both) * math.comb(population - one, two - both) for both in distribution.values.tolist()]
    exact = [float(Fraction(way, math.comb(population, two))) for way in ways]
    assert distribution.probabilities == pytest.approx(exact, rel=1e-12, abs=0)
    index = distribution.values / (one + two - distribution.values)
    mean = np.array(exact) @ index
    jaccard = occ.jaccard(population, [one, two])
    assert (jaccard.mean, jaccard.variance) == pytest.approx(
        (mean, np.array(exact) @ (index - mean) ** 2), rel=1e-10, abs=0
    )


@pytest.mark.parametrize(("one", "two"), [(10**6, 10**6), (10**4, 7 * 10**4), (BILLION - 50, 10**7)])
def test_two_parties_in_a_billion(one: int, two: int) -> None:
    distribution = occ.intersection_pmf(BILLION, [one, two])
    with localcontext() as context:
        context.prec = 50
        exact = [Decimal(1)]
        for both in distribution.values.tolist()[:-1]:
            step = Decimal((one - both) * (two - both)) / ((both + 1) * (BILLION - one - two + both + 1))
            exact.append(exact[-1] * step)
        total = sum(exact)
        expected = [float(weight / total) for weight in exact]
    assert distribution.probabilities == pytest.approx(expected, rel=1e-11, abs=0)


@pytest.mark.parametrize(
    ("population", "sizes"),
    [
        (10**5, [2000] * 50),
        (10**5, [50_000] * 5),
        (10**5, [99_000 + number for number in range(50)]),
        (BILLION, [3000, 200, 5 * 10**6]),
        (BILLION, [BILLION // 2] * 2),
        (818_787_954, [818_787_952, 818_787_951]),
        # The probabilities of few missed elements underflow, while the weights that multiply them overflow.
        (1_335_264, [1_335_264 - size for size in (43, 18_409, 31_902, 5_305, 176)]),
        (BILLION, [BILLION - 1] * 50),
    ],
)
def test_the_distribution_has_the_exact_moments(population: int, sizes: list[int]) -> None:
    moments = occ.union(population, sizes)
    start = time.perf_counter()
    distribution = occ.union_pmf(population, sizes)
    print(f"N = {population}, m = {len(sizes)}: {1000 * (time.perf_counter() - start):.1f} ms")
    assert distribution.probabilities.sum() == pytest.approx(1, rel=1e-14)
    assert distribution.mean == pytest.approx(moments.mean, rel=1e-15, abs=1e-9 * moments.sd)
    assert distribution.variance == pytest.approx(moments.variance, rel=1e-9, abs=0)
    nine_sd = 8.9 * moments.sd
    assert distribution.values[0] <= max(moments.support[0], moments.mean - nine_sd)
    assert distribution.values[-1] >= min(moments.support[1], moments.mean + nine_sd)


@pytest.mark.parametrize(
    ("population", "sizes"),
    [(100, [30, 20]), (200, [30, 90, 40]), (1000, [100] * 10), (5000, [2500, 2000, 10]), (10**5, [5000] * 20)],
)
def test_the_normal_approximation_and_the_intervals(population: int, sizes: list[int]) -> None:
    moments, distribution = occ.union(population, sizes), occ.union_pmf(population, sizes)
    normal, values = NormalDist(moments.mean, moments.sd), distribution.values
    below = np.concatenate(([0.0], np.cumsum(distribution.probabilities)))
    distances = [
        max(abs(normal.cdf(value) - before), abs(normal.cdf(value) - after))
        for value, before, after in zip(values.tolist(), below, below[1:], strict=False)
    ]
    assert max(distances) <= 0.56 / moments.sd

    low, high = moments.interval()
    covered = distribution.probabilities[(low <= values) & (values <= high)].sum()
    assert moments.sd < 3 or 0.93 <= covered <= 0.97

    first, last = (end - distribution.first for end in distribution.interval(0.9))
    assert below[first] <= 0.05 < below[first + 1]
    assert 1 - below[last + 1] <= 0.05 < 1 - below[last]


def union_and_intersection(population: int, sizes: tuple[int, ...]) -> dict[tuple[int, int], float]:
    """Return the exact joint distribution of the sizes of union and intersection.

    Random sets of the given sizes are added one by one. A new set draws from the elements that all earlier sets have,
    that only some of them have, and that none has.
    """
    chances = {(sizes[0], sizes[0]): 1.0}
    for size in sizes[1:]:
        grown: defaultdict[tuple[int, int], float] = defaultdict(float)
        for (either, both), chance in chances.items():
            for again in range(min(both, size) + 1):
                for old in range(min(either - both, size - again) + 1):
                    new = size - again - old
                    ways = math.comb(both, again) * math.comb(either - both, old) * math.comb(population - either, new)
                    if ways:
                        grown[either + new, again] += chance * ways / math.comb(population, size)
        chances = grown
    return chances


@pytest.mark.parametrize("sizes", [(20, 20, 20), (30, 25, 20), (38, 37, 36, 35), (39, 5, 39)])
def test_the_delta_method_for_the_jaccard_index(sizes: tuple[int, ...]) -> None:
    joint = union_and_intersection(40, sizes)
    weights = np.array(list(joint.values()))
    index = np.array([both / either for either, both in joint])
    mean = weights @ index
    variance = weights @ (index - mean) ** 2
    jaccard, union = occ.jaccard(40, sizes), occ.union(40, sizes)
    first_order = occ.intersection(40, sizes).mean / union.mean
    assert abs(jaccard.mean - mean) < 0.1 * abs(first_order - mean)
    assert 1 - 1 / union.mean < jaccard.variance / variance < 1 + 0.1 / union.mean


def simulated_classes(population: int, sizes: list[int], trials: int) -> NDArray[np.int64]:
    """Count the elements that exactly k of m random sets hold, for k = 0 … m, in each trial: ``[trials, m + 1]``."""
    rng = np.random.default_rng(20240501)
    levels = np.zeros((trials, population), np.int8)
    for size in sizes:
        members = rng.permuted(np.tile(np.arange(population, dtype=np.int16) < size, (trials, 1)), axis=1)
        levels += members
    return np.stack([(levels == level).sum(axis=1) for level in range(len(sizes) + 1)], axis=1)


@pytest.mark.parametrize(("population", "sizes"), [(500, [200, 150, 300]), (300, [120, 30, 200, 150, 250])])
def test_simulation(population: int, sizes: list[int]) -> None:
    trials = 10_000
    classes = simulated_classes(population, sizes, trials)
    exactly = occ.held_by_exactly(population, sizes)
    variances = np.diag(exactly.covariance)
    z_of_means = (classes.mean(axis=0) - exactly.mean) / np.sqrt(variances / trials)
    sampled = np.cov(classes, rowvar=False)
    spread = np.sqrt((np.outer(variances, variances) + exactly.covariance**2) / trials)
    assert np.abs(z_of_means).max() < 4
    assert np.abs((sampled - exactly.covariance) / spread).max() < 4

    union, intersection = occ.union(population, sizes), occ.intersection(population, sizes)
    assert (union.mean, union.variance) == pytest.approx((population - exactly.mean[0], variances[0]))
    assert (intersection.mean, intersection.variance) == pytest.approx((exactly.mean[-1], variances[-1]))

    jaccard = occ.jaccard(population, sizes)
    index = classes[:, -1] / (population - classes[:, 0])
    assert abs(index.mean() - jaccard.mean) < 4 * jaccard.sd / math.sqrt(trials)
    assert abs(index.var() / jaccard.variance - 1) < 4 * math.sqrt(2 / trials) + len(sizes) / union.mean
    low, high = jaccard.interval()
    assert 0.93 <= ((low <= index) & (index <= high)).mean() <= 0.97
