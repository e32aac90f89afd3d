import math
import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sketches.estimators import union_estimate
from sketches.estimators.estimate import Estimate
from sketches.estimators.overlap import overlap, pairwise_overlaps

Registers = NDArray[np.uint8]


def holding(n_prime: int, parts: dict[tuple[int, ...], int], nodes: int, rng: np.random.Generator) -> Registers:
    """Make registers ``[nodes, n_prime]``. ``parts`` maps nodes to the number of chunks on exactly these nodes."""
    registers = np.zeros((nodes, n_prime), np.uint8)
    for holders, chunks in parts.items():
        register = rng.integers(0, n_prime, chunks)
        for node in holders:
            registers[node, register] = 1
    return registers


def covers(estimate: Estimate, truth: float) -> bool:
    upper = math.inf if estimate.upper_bound is None else estimate.upper_bound
    return estimate.lower_bound - 1e-12 <= truth <= upper + 1e-12


PAIRS = {
    "disjoint": (0.5, 0.5, 0),
    "a third": (1 / 3, 1 / 3, 1 / 3),
    "half": (0.25, 0.25, 0.5),
    "contained": (0, 0.5, 0.5),
    "near-identical": (0.002, 0.002, 0.996),
    "identical": (0, 0, 1),
}


@pytest.mark.parametrize("shares", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize(("n_prime", "load"), [(1000, 0.02), (1000, 0.25), (4000, 1), (4000, 2)])
def test_pairs_are_unbiased_and_their_intervals_cover(
    n_prime: int, load: float, shares: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(6)
    first, second, common = (math.ceil(share * load * n_prime) for share in shares)
    trials, union = 300, first + second + common
    errors, variances, covered = [], [], np.zeros(2)
    for _ in range(trials):
        registers = holding(n_prime, {(0,): first, (1,): second, (0, 1): common}, 2, rng)
        pairs = pairwise_overlaps(registers)
        pair = pairs.pair(0, 1)
        errors.append(pairs.intersection[0, 1] - common)
        variances.append(pair.intersection_variance)
        covered += covers(pair.intersection, common), covers(pair.jaccard, common / union)
    sd = math.sqrt(np.mean(variances))
    assert abs(np.mean(errors)) < 4 * sd / math.sqrt(trials)
    if sd > 1:  # Below 1 chunk, the spread depends on single collisions.
        assert np.std(errors) == pytest.approx(sd, rel=0.15)
    assert covered.min() / trials > 0.91
    if load >= 1 and 0 < common < 0.6 * union:
        assert covered.max() / trials < 0.985


def test_the_standard_deviation_of_the_jaccard_index() -> None:
    rng = np.random.default_rng(7)
    found = [
        pairwise_overlaps(holding(2000, {(0,): 400, (1,): 900, (0, 1): 700}, 2, rng)).pair(0, 1) for _ in range(500)
    ]
    index = np.array([pair.jaccard.estimate for pair in found])
    assert index.mean() == pytest.approx(0.35, abs=0.003)
    assert index.std() == pytest.approx(math.sqrt(np.mean([pair.jaccard_variance for pair in found])), rel=0.1)


def test_a_pair_by_hand() -> None:
    """60 of 100 registers are empty on the first node, 50 on the second node, and 40 on both."""
    registers = np.zeros((2, 100), np.uint8)
    registers[0, 10:50] = 3
    registers[1, :10] = 1
    registers[1, 10:50] = 1
    registers[0, 50:] = 0
    registers[0, 40:50] = 0
    registers[0, 90:] = 2
    pairs = pairwise_overlaps(registers)
    assert pairs.empty.tolist() == [[60, 40], [40, 50]]
    a, b, u = math.log(100 / 60), math.log(100 / 50), math.log(100 / 40)
    common = 100 * (a + b - u) - (100 / 60 + 100 / 50 - 100 / 40 - 1) / 2
    assert pairs.intersection[0, 1] == pytest.approx(common)
    assert pairs.jaccard[0, 1] == pytest.approx(common / (100 * u - 0.75))
    spread = {x: math.expm1(x) - x for x in (a, b, u, a + b - u)}
    assert pairs.intersection_variance[0, 1] == pytest.approx(
        100 * (spread[u] + 2 * spread[a + b - u] - spread[a] - spread[b])
    )


@given(st.integers(1, 200), st.integers(1, 5), st.floats(0, 2), st.integers(0, 1000))
def test_pairs_singles_and_sets_agree(n_prime: int, nodes: int, load: float, seed: int) -> None:
    """For two nodes, ``overlap`` agrees with their entry in ``pairwise_overlaps``, whose entries are all finite.

    For one node, ``overlap`` agrees with the diagonal entry and with the union of that node.
    """
    registers = np.random.default_rng(seed).poisson(load, (nodes, n_prime)).astype(np.uint8)
    registers[-1] = registers[0]
    pairs = pairwise_overlaps(registers)
    for moment in (pairs.union, pairs.intersection, pairs.intersection_variance, pairs.jaccard, pairs.jaccard_variance):
        assert np.isfinite(moment).all() and np.array_equal(moment, moment.T)
    for a, b in combinations(range(nodes), 2):
        pair, both = pairs.pair(a, b), overlap(registers[[a, b]])
        for one, other in ((pair.intersection, both.intersection), (pair.jaccard, both.jaccard)):
            assert one.estimate == pytest.approx(other.estimate, abs=1e-6)
            assert one.lower_bound <= one.estimate + 1e-9 and one.saturated == other.saturated
            assert one.upper_bound is None or one.upper_bound >= one.estimate - 1e-9
        if not pairs.saturated[a, b]:
            assert pair.intersection_variance == pytest.approx(both.intersection_variance, rel=1e-6, abs=1e-6)
            assert pair.jaccard_variance == pytest.approx(both.jaccard_variance, rel=1e-6, abs=1e-9)
    alone, node = overlap(registers[:1]), union_estimate(int((registers[0] == 0).sum()), n_prime)
    assert pairs.saturated[0, 0] == node.saturated == alone.intersection.saturated
    if not node.saturated:
        assert alone.intersection.estimate == pytest.approx(pairs.intersection[0, 0], abs=1)
        assert pairs.jaccard[0, -1] == pytest.approx(1) and alone.jaccard.estimate == 1


@pytest.mark.parametrize("load", [0.25, 1])
def test_overlaps_of_three_and_four(load: float) -> None:
    rng = np.random.default_rng(8)
    n_prime, trials = 4000, 300
    weights = {(0,): 1, (1, 2): 2, (0, 1, 2): 3, (0, 1, 2, 3): 3, (1, 3): 1}
    parts = {holders: round(load * n_prime * weight / 10) for holders, weight in weights.items()}
    total = sum(parts.values())
    for nodes, common in ((3, parts[(0, 1, 2)] + parts[(0, 1, 2, 3)]), (4, parts[(0, 1, 2, 3)])):
        errors, variances, covered = [], [], np.zeros(2)
        for _ in range(trials):
            found = overlap(holding(n_prime, parts, 4, rng)[:nodes])
            errors.append(found.intersection.estimate - common)
            variances.append(found.intersection_variance)
            covered += covers(found.intersection, common), covers(found.jaccard, common / total)
        sd = math.sqrt(np.mean(variances))
        assert abs(np.mean(errors)) < 4 * sd / math.sqrt(trials)
        assert np.std(errors) == pytest.approx(sd, rel=0.15)
        assert 0.91 < covered.min() / trials <= covered.max() / trials < 0.985


def test_nodes_that_differ_by_little_are_not_called_identical() -> None:
    """At one chunk per register, two of three chunks share their register with another chunk.

    So if only one of two nodes has a certain chunk, their sketches may still have the same registers above zero.
    """
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(400):
        registers = holding(1000, {(0, 1): 1000, (0,): 1, (1,): 1}, 2, rng)
        pair = pairwise_overlaps(registers).pair(0, 1)
        covered += covers(pair.jaccard, 1000 / 1002)
        if np.array_equal(registers[0], registers[1]):
            assert pair.jaccard.lower_bound < pair.jaccard.estimate == pair.jaccard.upper_bound == 1
    assert covered / 400 > 0.93


def test_empty_nodes() -> None:
    registers = np.zeros((3, 50), np.uint8)
    registers[2, :40] = 1
    pairs = pairwise_overlaps(registers)
    nothing, nobody = pairs.pair(0, 2), pairs.pair(0, 1)
    assert nothing.intersection == Estimate(0, 0, 0, saturated=False)
    assert nothing.intersection_variance == 0 and nothing.jaccard.estimate == 0
    assert nobody.intersection == Estimate(0, 0, 0, saturated=False)
    assert nobody.jaccard == Estimate(1, 1, 1, saturated=False)
    assert overlap(registers).intersection == Estimate(0, 0, 0, saturated=False)


def test_saturated_sketches_answer_with_bounds() -> None:
    full, rest = np.ones((2, 1000), np.uint8), np.zeros((2, 1000), np.uint8)
    rest[0, :600] = rest[1, 400:] = 1
    registers = np.concatenate([full, rest])
    pairs = pairwise_overlaps(registers)
    assert pairs.saturated.tolist() == [[True] * 4, [True] * 4, [True, True, False, True], [True, True, True, False]]
    nothing_known = Estimate(0, 0, None, saturated=True)
    assert pairs.pair(0, 1).intersection == pairs.pair(0, 0).intersection == nothing_known
    assert overlap(full).intersection == nothing_known
    assert overlap(full).jaccard == Estimate(0, 0, 1, saturated=True)
    node = union_estimate(400, 1000).upper_bound
    assert pairs.pair(0, 2).intersection == Estimate(0, 0, node, saturated=True)
    assert node is not None
    assert node is not None
    assert pairs.pair(0, 2).jaccard.upper_bound == pytest.approx(node / (1000 * math.log(1000 / 3)))


def test_bounds_of_saturated_pairs_hold_and_use_the_union() -> None:
    rng = np.random.default_rng(10)
    seen = sharper = 0
    for _ in range(400):
        pairs = pairwise_overlaps(holding(200, {(0,): 500, (1,): 500, (0, 1): 100}, 2, rng))
        pair, nodes = pairs.pair(0, 1), [pairs.pair(node, node).intersection.upper_bound for node in (0, 1)]
        if pair.intersection.saturated and None not in nodes:
            seen += 1
            assert covers(pair.intersection, 100) and covers(pair.jaccard, 100 / 1100)
            assert pair.intersection.upper_bound is not None
            sharper += pair.intersection.upper_bound < min(node for node in nodes if node is not None)
    assert seen > 100 and sharper > 0.8 * seen


def test_no_nodes_and_too_many() -> None:
    assert pairwise_overlaps(np.zeros((0, 10), np.uint8)).intersection.shape == (0, 0)
    for nodes in (0, 21):
        with pytest.raises(ValueError, match="1 to 20 nodes"):
            overlap(np.zeros((nodes, 10), np.uint8))
    for function in (pairwise_overlaps, overlap):
        with pytest.raises(ValueError, match="no registers"):
            function(np.zeros((2, 0), np.uint8))


def test_all_pairs_of_twenty_nodes_take_a_fraction_of_a_second() -> None:
    registers = np.random.default_rng(11).integers(0, 3, (20, 10**6), np.uint8)
    start = time.perf_counter()
    pairwise_overlaps(registers)
    assert time.perf_counter() - start < 0.5
