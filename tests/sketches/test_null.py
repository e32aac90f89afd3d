from collections.abc import Callable
from hashlib import sha256
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from sketches.estimators.null import ExpectedOverlap, fitted_overlap, simulated_overlap, uniform_overlap
from sketches.estimators.overlap import pairwise_overlaps
from sketches.simulate.placement import Placement, sketch, uniform, weighted, zoned
from storage.cluster.placement import Candidate, rank

Floats = NDArray[np.float64]


def ranked(placement: Placement) -> Callable[[int], NDArray[np.integer]]:
    """Return a function that ranks the nodes of ``placement`` for chunks, as the service does."""
    nodes = [
        Candidate(str(node), placement.weights[node], f"z{placement.zones[node]}") for node in range(placement.nodes)
    ]
    return lambda chunks: rank([sha256(str(chunk).encode()).hexdigest() for chunk in range(chunks)], nodes)


def expected(
    placement: Placement, replicas: dict[int, int], how: str
) -> Callable[[NDArray[np.bool_]], ExpectedOverlap]:
    if how == "fitted":
        return lambda held: fitted_overlap(replicas, held.sum(axis=1))
    known = simulated_overlap(replicas, ranked(placement)) if how == "simulated" else uniform_overlap(replicas, 5)
    return lambda held: known


PLACEMENTS = {
    "uniform": (uniform(5), "uniform"),
    "uniform, fitted": (uniform(5), "fitted"),
    "weighted": (weighted(5), "fitted"),
    "weighted, simulated": (weighted(5), "simulated"),
    "zoned": (zoned(6), "simulated"),
}


@pytest.mark.parametrize(("placement", "how"), PLACEMENTS.values(), ids=PLACEMENTS)
@pytest.mark.parametrize("replicas", [{3: 2500}, {1: 500, 2: 500, 3: 1500}], ids=["one factor", "mixed factors"])
def test_healthy_pairs_score_as_a_standard_normal(placement: Placement, how: str, replicas: dict[int, int]) -> None:
    rng = np.random.default_rng(14)
    wanted = np.repeat(list(replicas), list(replicas.values()))
    above = np.triu_indices(placement.nodes, 1)
    null, found = expected(placement, replicas, how), []
    for _ in range(90):
        held = placement.hold(wanted, rng)
        found.append(null(held).scores(pairwise_overlaps(sketch(held, 4000, rng)))[above])
    scores = np.array(found)
    assert abs(scores.mean()) < 0.1
    assert 0.9 < scores.std() < 1.1
    assert np.mean(np.abs(scores) > 3) < 0.01


def test_few_chunks_raise_no_false_alarm() -> None:
    rng = np.random.default_rng(15)
    for placement, how in PLACEMENTS.values():
        null = expected(placement, {3: 40}, how)
        above = np.triu_indices(placement.nodes, 1)
        held = [placement.hold(np.full(40, 3), rng) for _ in range(90)]
        scores = [null(one).scores(pairwise_overlaps(sketch(one, 10_000, rng)))[above] for one in held]
        assert np.mean(np.abs(scores) > 3) < 0.01


def test_replicas_that_keep_together_show() -> None:
    """One chunk in ten lies on the first two nodes, against the placement.

    A null model of independent sets would not show these chunks.
    """
    rng = np.random.default_rng(16)
    held = uniform(5).hold(np.full(2500, 3), rng)
    held[:, :250] = np.array([True, True, False, False, True])[:, None]
    score = uniform_overlap({3: 2500}, 5).scores(pairwise_overlaps(sketch(held, 10_000, rng)))
    assert score[0, 1] > 4 and np.array_equal(score, score.T) and (np.diagonal(score) == 0).all()


def test_shares_alone_do_not_make_a_null() -> None:
    """Overlaps of unequal nodes are far from the null model of equal nodes, and agree with the fitted null model."""
    rng = np.random.default_rng(17)
    held = weighted(5).hold(np.full(5000, 3), rng)
    pairs = pairwise_overlaps(sketch(held, 20_000, rng))
    assert np.abs(uniform_overlap({3: 5000}, 5).scores(pairs)).max() > 6
    assert np.abs(fitted_overlap({3: 5000}, held.sum(axis=1)).scores(pairs)).max() < 4


@pytest.mark.parametrize("how", ["the product", "the simulation"])
@pytest.mark.parametrize("replicas", [{1: 200, 2: 800, 3: 9000}, {1: 3000, 3: 7000}])
def test_the_fit_holds_for_mixed_factors(how: str, replicas: dict[int, int]) -> None:
    """True overlaps, which have no errors of sketches, have the mean of the null model.

    The variance of the overlaps is the variance that the null model expects, given the number of chunks on each node.
    """
    rng, placement = np.random.default_rng(19), weighted(5)
    wanted = np.repeat(list(replicas), list(replicas.values()))
    nodes = [Candidate(str(node), weight) for node, weight in enumerate(placement.weights)]
    above, found = np.triu_indices(5, 1), []
    for _ in range(60):
        if how == "the product":
            drawn = rng.bytes(8 * len(wanted)).hex()
            order = rank([drawn[16 * chunk : 16 * chunk + 16] for chunk in range(len(wanted))], nodes)
        else:
            order = placement.rank(len(wanted), rng)
        held = (np.argsort(order, axis=1) < wanted[:, None]).astype(np.float64)
        null = fitted_overlap(replicas, held.sum(axis=0))
        found.append((held.T @ held - null.mean)[above] / np.sqrt(null.variance[above]))
    scores = np.array(found)
    assert 0.85 < scores.std() < 1.15
    assert np.abs(scores.mean(axis=0)).max() < 0.5  # The limit is four standard errors of each pair.
    assert np.mean(np.abs(scores) > 3) < 0.01


@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 1), (1, 2, 3, 4, 5), (0.1, 1, 1, 1, 20)])
@pytest.mark.parametrize("replicas", [{1: 1000}, {2: 1000}, {3: 1000}, {4: 1000}, {1: 300, 3: 700}, {2: 500, 5: 500}])
def test_the_fit_is_exact(weights: tuple[float, ...], replicas: dict[int, int]) -> None:
    """The null model is compared with an enumeration of all orders of the nodes.

    The expected variance is that of the residuals of a least-squares regression. The regression explains the overlap of
    each pair by the chunks on each node, and has one row per order and number of replicas.
    """
    orders = list(permutations(range(5)))
    left = np.array([[sum(weights[node] for node in order[at:]) for at in range(5)] for order in orders])
    probability = np.prod(np.array(weights)[np.array(orders)] / left, axis=1)
    pair, targets, explaining = np.zeros((5, 5)), [], []
    for r, chunks in replicas.items():
        holds = (np.argsort(orders, axis=1) < r).astype(np.float64)
        both = holds[:, :, None] * holds[:, None, :]
        mean = np.einsum("s,sab->ab", probability, both)
        root = np.sqrt(chunks * probability)[:, None]
        pair += chunks * mean
        targets.append(root * (both - mean).reshape(-1, 25))
        explaining.append(root * (holds - np.diagonal(mean)))
    null = fitted_overlap(replicas, np.diagonal(pair))
    assert null.mean == pytest.approx(pair, abs=1e-5)
    target, shares = np.concatenate(targets), np.concatenate(explaining)
    residual = target - shares @ np.linalg.lstsq(shares, target, rcond=1e-9)[0]
    assert null.variance == pytest.approx((residual**2).sum(axis=0).reshape(5, 5), abs=1e-5)


def test_the_fit_of_two_unequal_nodes_does_not_swing() -> None:
    assert fitted_overlap({1: 10}, [9, 1]).mean == pytest.approx(np.diag([9, 1]), abs=1e-6)
    assert fitted_overlap({2: 10}, [10, 7, 3]).mean[0] == pytest.approx([10, 7, 3], abs=1e-6)


def test_uniform_by_hand() -> None:
    null = uniform_overlap({3: 1000, 2: 100, 0: 7}, 5)
    assert null.mean[0, 1] == pytest.approx(310) and null.mean[2, 2] == pytest.approx(640)
    assert null.variance[0, 1] == pytest.approx(1000 * 0.3 * 0.7 + 100 * 0.1 * 0.9)


@pytest.mark.parametrize("r", [1, 5])
def test_one_replica_and_as_many_as_nodes(r: int) -> None:
    together = 1000.0 if r == 5 else 0.0
    order = np.tile(np.arange(5), (100, 1))
    for null in (
        uniform_overlap({r: 1000}, 5),
        fitted_overlap({r: 1000}, np.full(5, 200 * r)),
        simulated_overlap({5: 1000 if r == 5 else 0}, lambda chunks: order[:chunks], 100),
    ):
        assert null.mean[0, 1] == pytest.approx(together)
    registers = np.zeros((5, 4000), np.uint8)
    rng = np.random.default_rng(18)
    for node in range(5):
        registers[node, rng.integers(0, 4000, 200)] = 1
    if r == 1:
        assert np.abs(uniform_overlap({1: 1000}, 5).scores(pairwise_overlaps(registers))).max() < 4


@pytest.mark.parametrize(
    ("replicas", "held"),
    [
        ({}, []),
        ({}, [0, 0]),
        ({1: 0}, [0]),
        ({1: 9}, [9]),
        ({2: 9}, [9, 9]),
        ({1: 9}, [9, 0]),
        ({3: 9}, [9, 0, 0, 0]),
        ({0: 5, 1: 1, 2: 3}, [4, 3]),
    ],
)
def test_degenerate_nulls_are_finite(replicas: dict[int, int], held: list[int]) -> None:
    nodes = len(held)
    observed = pairwise_overlaps(np.zeros((nodes, 16), np.uint8))
    for null in (fitted_overlap(replicas, held), uniform_overlap(replicas, nodes)):
        assert np.isfinite(null.mean).all() and (null.variance >= 0).all()
        assert np.isfinite(null.scores(observed)).all()


def test_saturated_pairs_score_nothing() -> None:
    registers = np.zeros((3, 100), np.uint8)
    registers[0] = 1
    scores = uniform_overlap({2: 3000}, 3).scores(pairwise_overlaps(registers))
    assert scores[0, 1] == scores[0, 2] == 0 and scores[1, 2] < -3


def test_what_simulation_leaves_uncertain_is_part_of_the_variance() -> None:
    null = simulated_overlap({3: 1000}, ranked(uniform(5)), samples=1000)
    share = null.mean[0, 1] / 1000
    assert null.variance[0, 1] == pytest.approx(2 * 1000 * share * (1 - share))


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="no numbers of chunks"):
        uniform_overlap({4: 1}, 3)
    with pytest.raises(ValueError, match="no numbers of chunks"):
        fitted_overlap({1: -1}, [1])
    with pytest.raises(ValueError, match="negative"):
        fitted_overlap({1: 1}, [2, -1])
    with pytest.raises(ValueError, match="2 nodes observed, 3 expected"):
        uniform_overlap({1: 1}, 3).scores(pairwise_overlaps(np.zeros((2, 4), np.uint8)))
