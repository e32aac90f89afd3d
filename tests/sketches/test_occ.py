"""Overlaps of random sets: comparisons with all configurations of small sets, and properties of sets of any size."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sketches import occ

SMALL = [(population, parties) for population in range(1, 7) for parties in range(5)]


def all_classes(population: int, sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """Count the elements that exactly k of the m parties hold, for k = 0 … m: int64 ``[configurations, m + 1]``.

    Each row is one way in which the parties can hold elements. The first party always holds the first elements, because
    a renaming of the elements changes no count. The other parties take every subset of their size.
    """
    levels = np.zeros((1, population), np.int64)
    for number, size in enumerate(sizes):
        choices = list(itertools.combinations(range(population), size))
        subsets = np.array([np.isin(range(population), choice) for choice in (choices if number else choices[:1])])
        levels = (levels[:, None] + subsets).reshape(-1, population)
    return np.stack([(levels == level).sum(axis=1) for level in range(len(sizes) + 1)], axis=1)


def exact_moments(values: NDArray[np.int64]) -> tuple[list[Fraction], list[list[Fraction]]]:
    """Return the means and covariances of the columns of ``values``, if all its rows are equally likely."""
    configurations = len(values)
    means = [Fraction(int(total), configurations) for total in values.sum(axis=0)]
    products = values.T @ values
    covariance = [
        [Fraction(int(product), configurations) - mean * other for product, other in zip(row, means, strict=True)]
        for row, mean in zip(products, means, strict=True)
    ]
    return means, covariance


def close(fraction: Fraction) -> object:
    return pytest.approx(float(fraction), rel=1e-13, abs=1e-14)


@pytest.mark.parametrize(("population", "parties"), SMALL)
def test_all_configurations(population: int, parties: int) -> None:
    for sizes in itertools.combinations_with_replacement(range(population + 1), parties):
        classes = all_classes(population, sizes)
        means, covariance = exact_moments(classes)

        union, intersection = occ.union(population, sizes), occ.intersection(population, sizes)
        assert union.mean == close(population - means[0])
        assert union.variance == close(covariance[0][0])
        assert intersection.mean == close(means[-1])
        assert intersection.variance == close(covariance[-1][-1])
        assert occ.union_intersection_covariance(population, sizes) == close(-covariance[0][-1])
        assert union.support == (population - classes[:, 0].max(), population - classes[:, 0].min())
        assert intersection.support == (classes[:, -1].min(), classes[:, -1].max())

        exactly = occ.held_by_exactly(population, sizes)
        assert exactly.mean.tolist() == [close(mean) for mean in means]
        assert exactly.covariance.tolist() == [[close(entry) for entry in row] for row in covariance]


@pytest.mark.parametrize(("population", "parties"), SMALL)
def test_all_probabilities(population: int, parties: int) -> None:
    for sizes in itertools.combinations_with_replacement(range(population + 1), parties):
        classes = all_classes(population, sizes)
        for distribution, sample in (
            (occ.union_pmf(population, sizes), population - classes[:, 0]),
            (occ.intersection_pmf(population, sizes), classes[:, -1]),
        ):
            values, counts = np.unique(sample, return_counts=True)
            assert distribution.values.tolist() == values.tolist()
            assert distribution.probabilities == pytest.approx(counts / len(sample), rel=1e-13, abs=0)


@pytest.mark.parametrize(("population", "parties"), [(population, parties) for population, parties in SMALL if parties])
def test_jaccard_of_all_configurations(population: int, parties: int) -> None:
    for sizes in itertools.combinations_with_replacement(range(population + 1), parties):
        classes = all_classes(population, sizes)
        jaccard = occ.jaccard(population, sizes)
        if max(sizes) == 0:
            assert (jaccard.mean, jaccard.variance) == (1, 0)
            continue
        index = classes[:, -1] / (population - classes[:, 0])
        assert jaccard.support[0] <= index.min() and jaccard.support[1] == index.max()
        if parties <= 2 or min(sizes) == 0 or max(sizes) == population:
            assert (jaccard.mean, jaccard.variance) == pytest.approx((index.mean(), index.var()), rel=1e-12, abs=1e-14)
        else:
            error = parties / occ.union(population, sizes).mean
            assert abs(jaccard.mean - index.mean()) <= error**2 * index.mean()
            assert abs(jaccard.variance - index.var()) <= error * index.var()


FUNCTIONS: list[Callable[[int, list[int]], object]] = [
    occ.union,
    occ.intersection,
    occ.union_intersection_covariance,
    occ.held_by_exactly,
    occ.jaccard,
    occ.union_pmf,
    occ.intersection_pmf,
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_impossible_sizes_are_refused(function: Callable[[int, list[int]], object]) -> None:
    for population, sizes in [(5, [6]), (5, [2, -1]), (0, [0]), (-1, [])]:
        with pytest.raises(ValueError, match=r"cannot hold|at least one element"):
            function(population, sizes)
    with pytest.raises(TypeError):
        function(5, [2.5])  # type: ignore[list-item]


def test_no_party_at_all() -> None:
    assert (occ.union(7, []).mean, occ.union(7, []).variance) == (0, 0)
    assert (occ.intersection(7, []).mean, occ.intersection(7, []).variance) == (7, 0)
    assert occ.union_pmf(7, []).values.tolist() == [0]
    assert occ.intersection_pmf(7, []).values.tolist() == [7]
    assert occ.held_by_exactly(7, []).mean.tolist() == [7]
    with pytest.raises(ValueError, match="without a party"):
        occ.jaccard(7, [])


@pytest.mark.parametrize("coverage", [0, 1, -0.5, math.nan])
def test_impossible_coverages_are_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        occ.union(9, [4, 4]).interval(coverage)
    with pytest.raises(ValueError, match="between 0 and 1"):
        occ.union_pmf(9, [4, 4]).interval(coverage)


@st.composite
def parties(draw: st.DrawFn, largest: int = 10**9) -> tuple[int, list[int]]:
    """Draw a population of any magnitude, and sizes that are often near 0 or near the population."""
    population = draw(st.integers(1, 10) | st.integers(1, largest))
    size = st.integers(0, population)
    few = st.integers(0, min(population, 3))
    return population, draw(st.lists(size | few | few.map(lambda number: population - number), min_size=1, max_size=6))


@given(parties())
def test_the_intersection_is_what_the_complements_leave(case: tuple[int, list[int]]) -> None:
    population, sizes = case
    intersection = occ.intersection(population, sizes)
    complements = occ.union(population, [population - size for size in sizes])
    assert intersection.mean == pytest.approx(population - complements.mean, rel=1e-12, abs=1e-15 * population)
    assert intersection.mean == pytest.approx(
        population * math.prod(size / population for size in sizes), rel=1e-13, abs=1e-300
    )
    assert intersection.variance == complements.variance


@given(parties(), st.data())
def test_the_order_of_parties_does_not_matter(case: tuple[int, list[int]], data: st.DataObject) -> None:
    population, sizes = case
    permuted = data.draw(st.permutations(sizes))
    for function in (occ.union, occ.intersection, occ.jaccard):
        one, two = function(population, sizes), function(population, permuted)
        assert (one.mean, one.variance) == pytest.approx((two.mean, two.variance), rel=1e-12, abs=1e-300)
    exactly, likewise = occ.held_by_exactly(population, sizes), occ.held_by_exactly(population, permuted)
    assert exactly.mean == pytest.approx(likewise.mean, rel=1e-12, abs=1e-300)
    rounding = 1e-12 * exactly.covariance.max() + 1e-300
    assert np.abs(exactly.covariance - likewise.covariance).max() <= rounding


@given(parties())
def test_the_jaccard_index_stays_between_its_bounds(case: tuple[int, list[int]]) -> None:
    jaccard = occ.jaccard(*case)
    assert 0 <= jaccard.mean <= 1 and jaccard.variance >= 0
    low, high = jaccard.interval()
    assert 0 <= jaccard.support[0] <= low <= high <= jaccard.support[1] <= 1


@given(parties())
def test_the_classes_add_up_and_end_in_union_and_intersection(case: tuple[int, list[int]]) -> None:
    population, sizes = case
    exactly = occ.held_by_exactly(population, sizes)
    assert exactly.mean.sum() == pytest.approx(population, rel=1e-13)
    assert exactly.mean @ np.arange(len(sizes) + 1) == pytest.approx(sum(sizes), rel=1e-13)
    scale = exactly.covariance.max() + 1e-300
    assert np.abs(exactly.covariance.sum(axis=1)).max() <= 1e-12 * scale
    assert np.abs(exactly.covariance @ np.arange(len(sizes) + 1)).max() <= 1e-12 * scale
    assert (exactly.covariance == exactly.covariance.T).all()

    union, intersection = occ.union(population, sizes), occ.intersection(population, sizes)
    assert exactly.covariance[0, 0] == pytest.approx(union.variance, rel=1e-12, abs=1e-300)
    assert exactly.covariance[-1, -1] == pytest.approx(intersection.variance, rel=1e-12, abs=1e-300)


def test_weighted_classes() -> None:
    sizes = (4, 2, 3)
    classes = all_classes(6, sizes)
    exactly = occ.held_by_exactly(6, sizes)
    for weights in ([1, 1, 0, 0], [0, 0, 1, 0], [-1, 0.5, 2, 0]):
        sums = classes @ np.array(weights)
        moments = exactly.weighted(weights)
        assert (moments.mean, moments.variance) == pytest.approx((sums.mean(), sums.var()), rel=1e-13)
        assert moments.support[0] <= sums.min() and sums.max() <= moments.support[1]
    assert exactly.weighted([1, 1, 1, 1]).interval() == pytest.approx((6, 6))
    shifted = occ.held_by_exactly(10**9, [5, 10**6, 10**8]).weighted([10**6 + 1, 10**6, 10**6, 10**6])
    assert shifted.variance == pytest.approx(occ.union(10**9, [5, 10**6, 10**8]).variance, rel=1e-6)
    with pytest.raises(ValueError, match="as many weights"):
        exactly.weighted([1, 1])


@settings(deadline=None)
@given(parties(largest=20_000))
def test_the_distribution_keeps_to_its_support_and_moments(case: tuple[int, list[int]]) -> None:
    population, sizes = case
    for moments, distribution in (
        (occ.union(population, sizes), occ.union_pmf(population, sizes)),
        (occ.intersection(population, sizes), occ.intersection_pmf(population, sizes)),
    ):
        assert moments.support[0] <= distribution.values[0] and distribution.values[-1] <= moments.support[1]
        assert distribution.probabilities.min() >= 0
        assert distribution.probabilities.sum() == pytest.approx(1, rel=1e-14)
        assert distribution.mean == pytest.approx(moments.mean, rel=1e-12, abs=1e-17)
        assert distribution.variance == pytest.approx(moments.variance, rel=1e-9, abs=1e-17)
