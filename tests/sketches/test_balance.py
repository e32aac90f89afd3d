import math

import numpy as np
import pytest

from sketches.estimators.balance import node_balance
from sketches.estimators.estimate import Estimate
from sketches.simulate.placement import Placement, sketch, uniform, weighted


@pytest.mark.parametrize("placement", [uniform(5), weighted(5)], ids=["uniform", "weighted"])
@pytest.mark.parametrize(("n_prime", "chunks"), [(1000, 30), (4000, 1000), (4000, 4000)])
def test_chunks_and_shares_are_covered(placement: Placement, n_prime: int, chunks: int) -> None:
    rng = np.random.default_rng(12)
    held = placement.hold(np.full(chunks, 3), rng)
    of_node = held.sum(axis=1)
    share = of_node / of_node.sum()
    trials, covered, scaled = 200, np.zeros(2), []
    for _ in range(trials):
        nodes = node_balance(sketch(held, n_prime, rng), placement.weights).nodes
        for node, entry in enumerate(nodes):
            assert entry.chunks.upper_bound is not None and entry.share.upper_bound is not None
            covered += (
                entry.chunks.lower_bound <= of_node[node] <= entry.chunks.upper_bound,
                entry.share.lower_bound <= share[node] <= entry.share.upper_bound,
            )
            half = (entry.share.upper_bound - entry.share.lower_bound) / 2
            scaled.append((entry.share.estimate - share[node]) / half)
    assert covered.min() / (5 * trials) > (0.92 if chunks >= 1000 else 0.95)
    assert abs(np.mean(scaled)) < 0.05
    if chunks >= 1000:
        assert covered[1] / (5 * trials) < 0.98


def test_an_overfull_node_shows() -> None:
    rng = np.random.default_rng(13)
    held = weighted(5).hold(np.full(5000, 1), rng)
    balance = node_balance(sketch(held, 10_000, rng), np.ones(5))
    first, last = balance.nodes[0], balance.nodes[-1]
    assert first.fair_share == last.fair_share == 0.2
    assert first.share.upper_bound is not None and first.share.upper_bound < 0.2 < last.share.lower_bound
    truth = held[-1].sum() / 1000
    assert balance.peak is not None and balance.peak.upper_bound is not None
    assert balance.peak.lower_bound <= truth <= balance.peak.upper_bound
    fair = node_balance(sketch(held, 10_000, rng), np.linspace(1, 4, 5)).peak
    assert fair is not None and fair.estimate == pytest.approx(1, abs=0.1)


def test_a_node_to_be_emptied_has_no_fair_share_and_no_part_in_the_peak() -> None:
    registers = np.zeros((3, 100), np.uint8)
    registers[0, :30] = registers[1, :20] = registers[2, 20:40] = 1
    balance = node_balance(registers, [0, 5, 5])
    assert [node.fair_share for node in balance.nodes] == [0, 0.5, 0.5]
    assert balance.peak is not None and balance.peak.estimate == pytest.approx(balance.nodes[1].share.estimate * 2)
    assert node_balance(registers, [0, 0, 0]).peak is None


def test_one_node_no_node_and_no_chunks() -> None:
    (node,) = node_balance(np.array([[0, 2, 0, 1]], np.uint8), [3]).nodes
    assert node.share == Estimate(1, 1, 1, saturated=False)
    empty = node_balance(np.zeros((2, 10), np.uint8), [1, 3])
    assert [entry.share for entry in empty.nodes] == [Estimate(0, 0, 0, saturated=False)] * 2
    assert empty.peak == Estimate(0, 0, 0, saturated=False)
    nothing = node_balance(np.zeros((0, 10), np.uint8), [])
    assert nothing.nodes == () and nothing.peak is None


def test_saturated_nodes_bound_the_shares() -> None:
    registers = np.zeros((3, 1000), np.uint8)
    registers[0] = 1
    registers[1, :500] = 1
    full, half, empty = node_balance(registers, [1, 1, 1]).nodes
    least = 1000 * math.log(1000 / 3)
    assert half.chunks.upper_bound is not None
    assert full.share.lower_bound == pytest.approx(least / (least + half.chunks.upper_bound))
    assert full.share.upper_bound == 1 and full.share.saturated
    assert half.share.lower_bound == 0
    assert half.share.upper_bound == pytest.approx(half.chunks.upper_bound / (half.chunks.upper_bound + least))
    assert (empty.share.lower_bound, empty.share.upper_bound) == (0, 0)
    registers[2] = 1
    assert node_balance(registers, [1, 1, 1]).nodes[0].share == Estimate(0, 0, 1, saturated=True)


@pytest.mark.parametrize("weights", [[1], [1, -1], [1, math.inf], [1, math.nan], [[1, 1]]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="one weight"):
        node_balance(np.zeros((2, 10), np.uint8), weights)
