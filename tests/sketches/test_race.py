from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from sketches.estimators.epochs import Epoch, fitted_history
from sketches.estimators.race import Race
from sketches.simulate.placement import Placement
from storage.cluster.placement import Candidate, rank

Floats = NDArray[np.float64]

WEIGHTS = {
    "two alike": (1, 1),
    "two unlike": (1, 1e-6),
    "alike": (1, 1, 1, 1, 1),
    "1 to 4": (1, 1.6, 2.2, 2.8, 3.4, 4),
    "dominated": (0.1, 1, 1, 1, 20),
    "extreme": (1e-9, 1e-3, 1, 1, 5, 100),
}


def enumerated(weights: Floats, replicas: dict[int, float]) -> tuple[Floats, Floats, Floats]:
    """Return the chunks on each node, each pair and each triple of nodes, from the probabilities of all orders."""
    nodes = len(weights)
    one, two, three = np.zeros(nodes), np.zeros(2 * (nodes,)), np.zeros(3 * (nodes,))
    for r, chunks in replicas.items():
        for order in permutations(range(nodes), r):
            probability, left = 1.0, set(range(nodes))
            for node in order:
                probability *= weights[node] / sum(weights[other] for other in left)
                left.remove(node)
            chosen = np.isin(np.arange(nodes), order).astype(np.float64)
            one += chunks * probability * chosen
            two += chunks * probability * np.multiply.outer(chosen, chosen)
            three += chunks * probability * np.multiply.outer(np.multiply.outer(chosen, chosen), chosen)
    return one, two, three


def fitted(replicas: dict[int, float], held: Floats) -> Race:
    """Return the `Race` whose weights make the nodes hold ``held`` chunks on average. All chunks are of one epoch."""
    history = fitted_history([Epoch(tuple(range(len(held))), replicas)], held)
    return Race(history.weights, max(replicas))


def mixtures(nodes: int) -> list[dict[int, float]]:
    return [{r: 1.0} for r in range(1, nodes)] + [{r: 1.0 / r for r in range(1, nodes)}]


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_probabilities_are_those_of_all_orders(weights: tuple[float, ...]) -> None:
    for replicas in mixtures(len(weights)):
        race = Race(np.array(weights, np.float64), max(replicas))
        one, two, three = enumerated(race.weights, replicas)
        assert race.inclusion(replicas) == pytest.approx(one, abs=2e-11)
        assert race.pairs(replicas) == pytest.approx(two, abs=2e-11)
        values = np.arange(1.0, 1 + len(weights))
        assert race.pairs_with(replicas, values) == pytest.approx(three @ values, abs=5e-11)


@pytest.mark.parametrize("how", ["the product", "the simulation"])
def test_placements_are_races(how: str) -> None:
    weights, chunks, r = np.array([1.0, 2.0, 3.0, 0.5, 4.0, 2.0]), 1 << 17, 3
    rng = np.random.default_rng(20)
    if how == "the product":
        drawn = rng.bytes(8 * chunks).hex()
        nodes = [Candidate(str(node), weight) for node, weight in enumerate(weights)]
        order = rank([drawn[16 * chunk : 16 * chunk + 16] for chunk in range(chunks)], nodes)
    else:
        order = Placement(weights, np.arange(6)).rank(chunks, rng)
    held = np.zeros((chunks, 6))
    np.put_along_axis(held, order[:, :r], 1.0, axis=1)
    probability = Race(weights, r).pairs({r: 1})
    score = (held.T @ held - chunks * probability) / np.sqrt(chunks * probability * (1 - probability))
    assert np.abs(score).max() < 4


@pytest.mark.parametrize(
    ("nodes", "r", "precision"),
    [(50, 3, 1e-11), (50, 10, 1e-11), (50, 25, 1e-7), (20, 19, 1e-12), (200, 3, 1e-10), (200, 6, 1e-10)],
)
def test_many_nodes_add_up(nodes: int, r: int, precision: float) -> None:
    """A chunk with r replicas is on r nodes.

    The matrix of pairs has the chunks that are expected on both of two nodes, and in its diagonal the chunks that are
    expected on one node. So each row adds up to r times the chunks expected on its node. In the same way, the triples
    with a given pair add up to r times the chunks expected on that pair.
    """
    race = Race(np.linspace(1, 4, nodes), r)
    one, two = race.inclusion({r: 1}), race.pairs({r: 1})
    assert one.sum() == pytest.approx(r, rel=precision)
    assert two.sum(axis=1) == pytest.approx(r * one, rel=precision)
    assert race.pairs_with({r: 1}, np.ones(nodes)) == pytest.approx(r * two, rel=10 * precision)


def test_sensitivity_is_the_derivative() -> None:
    weights, replicas, change = np.array([0.2, 1.0, 2.0, 3.0, 4.0]), {1: 0.3, 3: 0.7}, 1e-5
    found = Race(weights, 3).sensitivity(replicas)
    for node in range(5):
        factor = np.where(np.arange(5) == node, np.exp(change), 1.0)
        more, less = Race(weights * factor, 3).inclusion(replicas), Race(weights / factor, 3).inclusion(replicas)
        assert found[node] == pytest.approx((more - less) / (2 * change), abs=1e-9)


@pytest.mark.parametrize("nodes", [2, 3, 5, 20, 50])
@pytest.mark.parametrize("spread", [0, 1.5, 6, 18])
def test_the_fit_finds_the_weights_from_the_shares(nodes: int, spread: float) -> None:
    """The nodes' shares of the chunks are from 1e-8 to 1 - 1e-8.

    Even where the fit misses extreme weights, the number of chunks of each pair of nodes is right.
    """
    weights = np.exp(np.linspace(0, spread, nodes))
    for replicas in [{min(3, nodes - 1): 1.0}, {1: 0.3, nodes - 1: 0.7}, {r: 1.0 / r for r in range(1, min(4, nodes))}]:
        true = Race(weights, max(replicas))
        fit = fitted(replicas, true.inclusion(replicas))
        assert fit.inclusion(replicas) == pytest.approx(true.inclusion(replicas), abs=3e-9)
        assert fit.pairs(replicas) == pytest.approx(true.pairs(replicas), abs=5e-9)


@pytest.mark.parametrize("held", [(0, 0, 0, 0), (9, 0, 0, 0), (5, 5, 1, 1), (9, 9, 9, 9)])
def test_impossible_shares_are_fitted_as_far_as_they_go(held: tuple[float, ...]) -> None:
    """Half of the chunks have one replica, so two nodes cannot both hold nearly all chunks."""
    replicas = {1: 3.0, 3: 3.0}
    found = fitted(replicas, np.array(held, np.float64)).inclusion(replicas)
    assert found.sum() == pytest.approx(12) and (found > -1e-9).all() and (found < 6 + 1e-9).all()
    assert (np.diff(found) <= 1e-9).all()
