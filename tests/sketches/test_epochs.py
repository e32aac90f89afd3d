from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from sketches.estimators import null
from sketches.estimators.epochs import Epoch, fitted_history
from sketches.estimators.null import ExpectedOverlap, epochs_overlap, fitted_overlap, simulated_overlap
from sketches.estimators.overlap import pairwise_overlaps
from sketches.estimators.race import Race
from sketches.simulate.placement import Placement, sketch

HISTORIES = {
    "two nodes joined together": (
        np.ones(8),
        [Epoch((0, 1, 2, 3, 4, 5), {3: 1500}), Epoch(tuple(range(8)), {3: 1000})],
    ),
    "3 to 6 nodes, half before": (np.ones(6), [Epoch((0, 1, 2), {3: 1250}), Epoch(tuple(range(6)), {3: 1250})]),
    "2 replicas on 5, 3 on 8": (np.ones(8), [Epoch((0, 1, 2, 3, 4), {2: 1250}), Epoch(tuple(range(8)), {3: 1250})]),
    "one by one, unlike": (
        np.array([1, 2, 3, 1, 2, 4, 1.0]),
        [Epoch(tuple(range(nodes)), {2: 200, 3: 400}) for nodes in (4, 5, 6, 7)],
    ),
}


def placed(weights: NDArray[np.float64], epochs: Sequence[Epoch], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Place the chunks of each epoch on the nodes of that epoch. Return which of the m nodes has which chunk.

    The result is bool ``[m, chunks]``.
    """
    parts = []
    for epoch in epochs:
        wanted = np.repeat(list(epoch.replicas), [int(chunks) for chunks in epoch.replicas.values()])
        held = np.zeros((len(weights), len(wanted)), np.bool_)
        nodes = list(epoch.nodes)
        held[nodes] = Placement(weights[nodes], np.arange(len(nodes))).hold(wanted, rng)
        parts.append(held)
    return np.concatenate(parts, axis=1)


def merged(epochs: Sequence[Epoch]) -> dict[int, float]:
    """Return number of replicas → number of chunks, summed over all epochs."""
    return {
        r: sum(epoch.replicas.get(r, 0) for epoch in epochs) for r in {r for epoch in epochs for r in epoch.replicas}
    }


@pytest.mark.parametrize(("weights", "epochs"), HISTORIES.values(), ids=HISTORIES)
def test_healthy_pairs_of_any_history_score_as_a_standard_normal(
    weights: NDArray[np.float64], epochs: list[Epoch]
) -> None:
    rng = np.random.default_rng(30)
    above, found, flat = np.triu_indices(len(weights), 1), [], []
    for run in range(80):
        held = placed(weights, epochs, rng)
        pairs, fills = pairwise_overlaps(sketch(held, 10_000, rng)), held.sum(axis=1)
        found.append(epochs_overlap(epochs, fills).scores(pairs)[above])
        if run < 10:
            flat.append(fitted_overlap(merged(epochs), fills).scores(pairs)[above])
    scores = np.array(found)
    assert abs(scores.mean()) < 0.1
    assert 0.93 < scores.std() < 1.07
    assert np.mean(np.abs(scores) > 3) < 0.007
    assert np.abs(flat).max(axis=1).min() > 4  # If the epochs are ignored, some pair seems wrong in every survey.


def test_a_history_over_zones_is_the_sum_of_simulated_epochs() -> None:
    """Each of three zones has one node at first, and two nodes later.

    A simulation with the present nodes alone would find every survey wrong.
    """
    rng, runs, flat = np.random.default_rng(33), [], []
    first, second = Placement(np.ones(3), np.arange(3)), Placement(np.ones(6), np.arange(6) % 3)
    old = simulated_overlap({2: 1000}, lambda chunks: first.rank(chunks, rng))
    new = simulated_overlap({2: 1500}, lambda chunks: second.rank(chunks, rng))
    everything = simulated_overlap({2: 2500}, lambda chunks: second.rank(chunks, rng))
    history = ExpectedOverlap.summed(6, [((0, 1, 2), old), (range(6), new)])
    for _ in range(60):
        held = np.zeros((6, 2500), np.bool_)
        held[:3, :1000], held[:, 1000:] = first.hold(np.full(1000, 2), rng), second.hold(np.full(1500, 2), rng)
        pairs = pairwise_overlaps(sketch(held, 10_000, rng))
        runs.append(history.scores(pairs)[np.triu_indices(6, 1)])
        flat.append(np.abs(everything.scores(pairs)).max())
    assert np.mean(np.abs(runs) > 3) < 0.01 and 0.8 < np.std(runs) < 1.1
    assert min(flat) > 6


def test_replicas_that_gather_show_against_the_history() -> None:
    """A tenth of the chunks of the last epoch lie on the two nodes that joined last, against the placement."""
    rng = np.random.default_rng(31)
    weights, epochs = HISTORIES["two nodes joined together"]
    held = placed(weights, epochs, rng)
    held[:, -100:] = np.isin(np.arange(8), (0, 6, 7))[:, None]
    score = epochs_overlap(epochs, held.sum(axis=1)).scores(pairwise_overlaps(sketch(held, 10_000, rng)))
    assert score[6, 7] > 4


@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 1), (1, 2, 3, 4, 5), (20, 1, 1, 1, 0.1)])
@pytest.mark.parametrize("first", [{2: 300}, {1: 100, 2: 200}, {3: 300}])
def test_the_null_of_a_history_is_exact(weights: tuple[float, ...], first: dict[int, int]) -> None:
    """The null model is compared with an enumeration of all orders of the nodes of each epoch.

    The expected variance is that of the residuals of a least-squares regression. The regression explains the overlap of
    each pair by the chunks on each node, and has one row per order, epoch and number of replicas.
    """
    epochs = [Epoch((0, 1, 2), first), Epoch((2, 3, 4, 0, 1), {3: 700})]
    pair, targets, explaining = np.zeros((5, 5)), [], []
    for epoch in epochs:
        orders = list(permutations(epoch.nodes))
        probability = np.array(
            [
                np.prod([weights[n] / sum(weights[k] for k in order[at:]) for at, n in enumerate(order)])
                for order in orders
            ]
        )
        for r, chunks in epoch.replicas.items():
            holds = np.array([np.isin(np.arange(5), order[:r]) for order in orders]).astype(np.float64)
            both = holds[:, :, None] * holds[:, None, :]
            mean = np.einsum("s,sab->ab", probability, both)
            root = np.sqrt(chunks * probability)[:, None]
            pair += chunks * mean
            targets.append(root * (both - mean).reshape(-1, 25))
            explaining.append(root * (holds - np.diagonal(mean)))
    found = epochs_overlap(epochs, np.diagonal(pair))
    assert found.mean == pytest.approx(pair, abs=1e-5)
    target, shares = np.concatenate(targets), np.concatenate(explaining)
    residual = target - shares @ np.linalg.lstsq(shares, target, rcond=1e-9)[0]
    assert found.variance == pytest.approx((residual**2).sum(axis=0).reshape(5, 5), abs=1e-4)


@pytest.mark.parametrize(
    ("spread", "most"), [(np.linspace(1, 4, 24), 0.002), (np.exp(np.linspace(0, np.log(100), 24)), 0.02)]
)
def test_many_nodes_cost_little_and_lose_little(
    spread: NDArray[np.float64], most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above 16 nodes, the null model regresses on sums over nodes, and so its standard deviation is a little larger.

    The standard deviation is compared with the one that a regression on every single node gives.
    """
    rng = np.random.default_rng(32)
    everyone = tuple(range(24))
    for epochs in (
        [Epoch(everyone, {3: 1000})],
        [Epoch(everyone, {2: 300, 5: 700})],
        [Epoch(everyone[:5], {3: 900}), Epoch(everyone, {3: 500})],
        [Epoch(everyone[:nodes], {2: 300, 3: 300}) for nodes in range(5, 25)],
        [Epoch(everyone[:20], {2: 500, 5: 300}), Epoch(everyone, {3: 500})],
    ):
        weights, held = rng.permutation(spread), np.zeros(24)
        for epoch in epochs:
            nodes = list(epoch.nodes)
            held[nodes] += Race(weights[nodes], max(epoch.replicas)).inclusion(epoch.replicas)
        quick = epochs_overlap(epochs, held)
        with monkeypatch.context() as patch:
            patch.setattr(null, "SINGLE", 24)
            slow = epochs_overlap(epochs, held)
        above = np.triu_indices(24, 1)
        assert quick.mean == pytest.approx(slow.mean)
        ratio = np.sqrt(quick.variance[above] / slow.variance[above])
        assert ratio.min() > 1 - 1e-4 and ratio.max() < 1 + most


def test_the_fit_finds_the_weights_from_a_history() -> None:
    weights = np.array([1, 2, 3, 1, 2, 4, 1.0])
    epochs = [Epoch(tuple(range(nodes)), {2: 200, 3: 400, nodes: 50}) for nodes in (4, 5, 7)]
    held = np.zeros(7)
    for epoch in epochs:
        nodes = list(epoch.nodes)
        held[nodes] += Race(weights[nodes], 3).inclusion({2: 200, 3: 400}) + 50
    assert fitted_history(epochs, held).weights * 4 == pytest.approx(weights, rel=1e-6)


def test_epochs_of_the_same_nodes_are_one() -> None:
    held = [300, 400, 500, 300.0]
    once = epochs_overlap([Epoch((0, 1, 2, 3), {3: 400, 2: 150})], held)
    twice = epochs_overlap([Epoch((3, 2, 1, 0), {3: 300}), Epoch((0, 1, 2, 3), {3: 100, 2: 150}), Epoch((), {})], held)
    assert np.allclose(once.mean, twice.mean) and np.allclose(once.variance, twice.variance)
    assert np.allclose(once.mean, fitted_overlap({3: 400, 2: 150}, held).mean)


@pytest.mark.parametrize(
    ("epochs", "held"),
    [
        ([], []),
        ([], [3, 0]),
        ([Epoch((0,), {1: 5})], [5, 0]),
        ([Epoch((0, 1), {2: 5}), Epoch((1, 2), {1: 5})], [5, 9, 1]),
        ([Epoch((0, 1), {1: 5}), Epoch((2, 3), {1: 5})], [5, 0, 0, 5]),
        ([Epoch((0, 1, 2), {3: 5}), Epoch((0, 1, 2, 3, 4), {3: 1})], [0, 0, 0, 0, 18]),
    ],
)
def test_degenerate_histories_are_finite(epochs: list[Epoch], held: list[int]) -> None:
    found = epochs_overlap(epochs, held)
    assert np.isfinite(found.mean).all() and (found.variance >= 0).all()
    assert np.isfinite(found.scores(pairwise_overlaps(np.zeros((len(held), 16), np.uint8)))).all()


@pytest.mark.parametrize(
    ("epoch", "message"),
    [
        (Epoch((0, 1), {3: 1}), "no numbers of chunks"),
        (Epoch((0, 1), {1: -1}), "no numbers of chunks"),
        (Epoch((0, 5), {1: 1}), "no distinct nodes"),
        (Epoch((0, 0), {1: 1}), "no distinct nodes"),
    ],
)
def test_impossible_histories_are_refused(epoch: Epoch, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        epochs_overlap([epoch], [1, 1, 1])
