from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sketches.estimators import blast
from sketches.estimators.blast import blast_radius, confinement_scores, expected_confined, worst_sets
from sketches.estimators.discrete import score_bound
from sketches.estimators.epochs import Epoch, fitted_history
from sketches.simulate.placement import Placement, sketch, uniform

N_PRIME = 10_000


def gathered(chunks: int, together: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Place chunks on five old and three new nodes: ``together`` chunks go to the new nodes only, and most copies of
    the other chunks go to the old nodes.
    """
    held = np.zeros((8, chunks), np.bool_)
    held[5:, :together] = True
    held[:5, together:] = uniform(5).hold(np.full(chunks - together, 3), rng)
    for chunk in range(together, chunks, 4):
        held[rng.choice(np.flatnonzero(held[:5, chunk])), chunk] = False
        held[rng.integers(5, 8), chunk] = True
    return held


@pytest.mark.parametrize(("chunks", "together"), [(2410, 577), (5000, 1221)])
def test_the_chunks_of_three_nodes_that_were_filled_alike_are_counted(chunks: int, together: int) -> None:
    """A cluster grew from 5 to 8 nodes: every run finds the worst three nodes, and the number of their chunks within a
    few percent.
    """
    rng, errors, covered = np.random.default_rng(50), [], []
    for _ in range(30):
        registers = sketch(gathered(chunks, together, rng), N_PRIME, rng)
        (nodes, answer), second, *_ = worst_sets(registers, 3, 5)
        assert nodes == (5, 6, 7) and second[1].estimate < answer.estimate / 2
        assert answer.upper_bound is not None
        errors.append(answer.estimate - together)
        covered.append(answer.lower_bound <= together <= answer.upper_bound)
    assert abs(np.mean(errors)) < 0.01 * together
    assert np.std(errors) < 0.03 * together
    assert np.mean(covered) >= 0.83  # The limit is .95 less 3 standard errors of 30 runs.


@pytest.mark.parametrize("load", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("confined", [0, 1, 5, 25, 300])
def test_the_interval_holds_the_truth(confined: int, load: float) -> None:
    rng, runs, chunks = np.random.default_rng(51), 400, max(int(load * 2000), confined)
    held = np.zeros((6, chunks), np.bool_)
    held[:2, :confined] = True
    for chunk in range(confined, chunks):
        held[[2 + chunk % 4, *rng.choice(6, 2, replace=False)], chunk] = True
    covered, found = [], []
    for _ in range(runs):
        answer = blast_radius(sketch(held, 2000, rng), (0, 1))
        assert answer.upper_bound is not None and answer.lower_bound <= answer.estimate <= answer.upper_bound
        covered.append(answer.lower_bound <= confined <= answer.upper_bound)
        found.append(answer.estimate)
    assert np.mean(covered) >= 0.92
    assert abs(np.mean(found) - confined) < max(5 * np.std(found) / np.sqrt(runs), 0.5)


def test_healthy_sets_are_within_the_bound() -> None:
    rng, placement = np.random.default_rng(52), Placement(np.linspace(1, 3, 9), np.arange(9))
    triples = list(combinations(range(9), 3))
    epochs = [Epoch((0, 1, 2, 3, 4), {3: 800, 2: 30}), Epoch(tuple(range(9)), {3: 1500, 2: 100})]
    largest, scores = [], []
    for _ in range(60):
        old, new = np.zeros((9, 830), np.bool_), placement.hold(np.repeat([3, 2], [1500, 100]), rng)
        old[:5] = Placement(placement.weights[:5], np.arange(5)).hold(np.repeat([3, 2], [800, 30]), rng)
        held = np.concatenate([old, new], axis=1)
        expected = expected_confined(fitted_history(epochs, held.sum(axis=1)), triples)
        scores.append(confinement_scores(sketch(held, N_PRIME, rng), triples, expected))
        largest.append(scores[-1].max())
    assert abs(np.mean(scores)) < 0.1 and np.std(scores) < 1.05
    assert np.mean(np.array(largest) > score_bound(len(triples))) <= 0.05


def test_what_gathers_is_out_of_bounds_and_what_keeps_apart_scores_below() -> None:
    rng = np.random.default_rng(53)
    held = gathered(2410, 577, rng)
    registers = sketch(held, N_PRIME, rng)
    history = fitted_history([Epoch(tuple(range(8)), {3: 2410})], held.sum(axis=1))
    gathering, apart = confinement_scores(
        registers, [(5, 6, 7), (0, 5, 6)], expected_confined(history, [(5, 6, 7), (0, 5, 6)])
    )
    assert gathering > 20 and apart < -4


def test_a_chunk_where_hardly_one_is_expected_is_no_alarm() -> None:
    """If one chunk is found where .01 are expected, a score by the normal distribution would be 10."""
    registers = np.zeros((20, 1000), np.uint8)
    registers[:3, 7] = 1
    score = float(confinement_scores(registers, [(0, 1, 2)], np.array([0.01]))[0])
    assert 1.5 < score < score_bound(1140)
    assert confinement_scores(registers, [(3, 4, 5)], np.array([0.01])) == 0


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 4))
def test_the_worst_sets_are_those_of_most_chunks(seed: int, nodes: int, size: int) -> None:
    rng, size = np.random.default_rng(seed), min(size, nodes)
    registers = (rng.random((nodes, 60)) < rng.random((nodes, 60)) * 0.5).astype(np.uint8)
    answers = {chosen: blast_radius(registers, chosen) for chosen in combinations(range(nodes), size)}
    found = worst_sets(registers, size, 1000)
    assert all(answers[chosen] == answer for chosen, answer in found)
    assert [answer.lower_bound for _, answer in found] == sorted((a.lower_bound for _, a in found), reverse=True)
    assert {chosen for chosen, _ in found} == {chosen for chosen, answer in answers.items() if answer.estimate}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_bounded_search_finds_what_gathers(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(54)
    held = uniform(12).hold(np.repeat([2, 3], [1500, 1500]), rng)
    held[:, :200] = np.isin(np.arange(12), (1, 4))[:, None]
    held[:, 1500:1700] = np.isin(np.arange(12), (2, 6, 9))[:, None]
    registers = sketch(held, N_PRIME, rng)
    every = worst_sets(registers, size, 3)
    monkeypatch.setattr(blast, "MAX_TERMS", 0)
    assert worst_sets(registers, size, 3) == every


def test_expectations_are_those_of_all_orders() -> None:
    weights = np.array([0.1, 1, 2, 3, 20])
    epochs = [Epoch((0, 1, 2), {1: 50, 3: 40}), Epoch((0, 1, 2, 3, 4), {2: 500, 3: 700})]
    held, sets = np.zeros(5), list(combinations(range(5), 3))
    expected = np.zeros(len(sets))
    for epoch in epochs:
        for r, chunks in epoch.replicas.items():
            for order in permutations(epoch.nodes, r):
                left, probability = set(epoch.nodes), 1.0
                for node in order:
                    probability *= weights[node] / sum(weights[list(left)])
                    left.remove(node)
                held[list(order)] += chunks * probability
                expected += [chunks * probability * set(order).issubset(chosen) for chosen in sets]
    history = fitted_history(epochs, held)
    assert expected_confined(history, sets) == pytest.approx(expected, abs=1e-4)
    assert expected_confined(history, [range(5)]) == pytest.approx([1290])
    assert expected_confined(history, [()]).tolist() == [0] and expected_confined(history, []).tolist() == []


def test_what_registers_prove_and_what_they_cannot_tell() -> None:
    registers = np.zeros((3, 100), np.uint8)
    registers[0, :30] = registers[1, 20:50] = 1
    assert blast_radius(registers, (0,)).lower_bound >= 20
    assert blast_radius(registers, (2,)).estimate == blast_radius(registers, ()).estimate == 0
    assert blast_radius(registers, (0, 1, 2)).lower_bound >= 50
    registers[2] = 1
    registers[2, :3] = 0
    full = blast_radius(registers, (0, 1))
    assert full.saturated and full.lower_bound == 3 and full.upper_bound is None
    registers[2] = 1
    assert blast_radius(registers, (0, 1)).saturated and worst_sets(registers, 2, 5)[0][0] == (0, 2)


def test_triples_of_sixty_nodes_are_all_looked_at() -> None:
    rng = np.random.default_rng(55)
    held = uniform(60).hold(np.full(2500, 3), rng)
    held[:, :30] = np.isin(np.arange(60), (17, 40, 59))[:, None]
    (nodes, answer), *_ = worst_sets(sketch(held, N_PRIME, rng), 3, 3)
    assert nodes == (17, 40, 59) and answer.lower_bound <= 30 <= (answer.upper_bound or 0)


def test_impossible_sets_are_refused() -> None:
    registers = np.zeros((3, 100), np.uint8)
    with pytest.raises(ValueError, match="not among 3 nodes"):
        blast_radius(registers, (1, 3))
    for size in (0, 4):
        with pytest.raises(ValueError, match="no sets of"):
            worst_sets(registers, size, 1)
    history = fitted_history([Epoch((0, 1, 2), {1: 5})], [1, 2, 2])
    with pytest.raises(ValueError, match="one size"):
        expected_confined(history, [(0,), (1, 2)])
