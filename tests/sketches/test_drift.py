from collections.abc import Callable

import numpy as np
import pytest

from sketches.estimators.drift import compare, disagreement, needs_rebuild
from sketches.exceptions import IncompatibleSketches
from sketches.lcrs import LCRS

Names = Callable[..., list[str]]


def sketch(registers: object, tau: int = 255, seed: int = 1) -> LCRS:
    return LCRS.from_registers(np.asarray(registers), tau, seed)


def scores(n_prime: int, chunks: int, doubled: int, lost: int, trials: int) -> np.ndarray:
    rng = np.random.default_rng(chunks)
    found = []
    for _ in range(trials):
        register = rng.integers(0, n_prime, chunks)
        registers = np.bincount(np.concatenate([register, register[:doubled]]), minlength=n_prime)
        taken = np.flatnonzero(registers > 1)[:lost]
        registers[taken] -= 1
        found.append(disagreement(sketch(registers)).score)
    return np.array(found)


@pytest.mark.parametrize(("n_prime", "chunks"), [(1000, 30), (1000, 250), (10_000, 2500), (10_000, 20_000)])
def test_sound_sketches_score_as_a_standard_normal_at_most(n_prime: int, chunks: int) -> None:
    found = scores(n_prime, chunks, 0, 0, 800)
    assert abs(found.mean()) < 0.2 and found.std() < 1.06
    assert np.mean(np.abs(found) > 3) < 0.01
    if chunks >= 2500:
        assert abs(found.mean()) < 0.1 and found.std() > 0.94


def test_chunks_counted_twice_and_lost_counts_show() -> None:
    """The standard deviation at 2,500 chunks in 10,000 registers is 18 chunks: 110 chunks are six deviations."""
    assert scores(10_000, 2500, 110, 0, 100).mean() == pytest.approx(110 / 18.5, abs=0.5)
    assert scores(10_000, 2500, 0, 110, 100).mean() == pytest.approx(-110 / 18.5, abs=0.5)


def test_one_chance_collision_is_no_alarm() -> None:
    """In one of 90 runs, two of 150 chunks share one of a million registers.

    For one collision of two chunks, a score by the normal distribution would be 9.
    """
    registers = np.zeros(10**6, np.uint8)
    registers[:148], registers[148] = 1, 2
    assert 0 < disagreement(sketch(registers)).score < 3
    registers[148:150] = 3
    assert disagreement(sketch(registers)).score > 3


def test_what_the_two_accounts_say() -> None:
    found = disagreement(sketch([0, 1, 2, 0, 1, 0, 0, 0]))
    assert (found.counted, found.saturated) == (4, 0)
    assert 3 < found.estimated.estimate < 5


def test_saturated_registers_do_not_pass_for_lost_counts() -> None:
    registers = np.random.default_rng(4).poisson(3, 10_000)
    assert abs(disagreement(sketch(registers)).score) < 3
    capped = disagreement(sketch(registers, tau=3))
    assert capped.score == 0 and capped.saturated > 0
    assert capped.counted < registers.sum()


@pytest.mark.parametrize("registers", [[0], [1], [7], [0, 0], [3, 0], [1, 1], [0, 0, 9], [255] * 50, [0] * 50])
def test_any_sketch_has_a_finite_score(registers: list[int]) -> None:
    found = disagreement(sketch(registers))
    assert np.isfinite(found.score)
    if sum(registers) < 2:
        assert found.score == 0


def test_a_comparison_counts_every_difference() -> None:
    in_use = sketch([0, 0, 1, 2, 5, 5, 3, 1], tau=5)
    listed = sketch([0, 1, 1, 1, 5, 2, 4, 0], tau=5)
    found = compare(in_use, listed)
    assert (found.registers, found.differing) == (8, 5)
    assert (found.over_counts, found.under_counts, found.false_negatives) == (3, 2, 1)
    assert found.saturated == 2 and found.saturated_share == 0.25
    assert found.needs_rebuild


def test_a_sketch_kept_in_step_does_not_differ(chunk_names: Names) -> None:
    chunks = chunk_names(5000)
    in_use, listed = LCRS(8192, 255, 11), LCRS(8192, 255, 11)
    in_use.add(chunks)
    in_use.remove(chunks[:2000])
    listed.add(chunks[2000:])
    found = compare(in_use, listed)
    assert found.differing == 0 and not found.needs_rebuild
    in_use.add(chunks[:1])
    assert compare(in_use, listed).over_counts == 1 and not compare(in_use, listed).needs_rebuild
    in_use.remove(chunks[:1] + chunks[2000:2001])
    assert compare(in_use, listed).under_counts == 1 and compare(in_use, listed).needs_rebuild


def test_one_stuck_register_in_a_thousand_is_borne() -> None:
    assert not needs_rebuild(0, 1) and not needs_rebuild(10, 10_000)
    assert needs_rebuild(11, 10_000) and needs_rebuild(1, 999)
    full = np.zeros(10_000, np.int64)
    full[:11] = 5
    assert compare(sketch(full, tau=5), sketch(full, tau=5)).needs_rebuild
    full[10] = 4
    assert not compare(sketch(full, tau=5), sketch(full, tau=5)).needs_rebuild


@pytest.mark.parametrize("other", [LCRS(16, 5, 1), LCRS(8, 6, 1), LCRS(8, 5, 2)])
def test_only_sketches_of_a_kind_are_compared(other: LCRS) -> None:
    with pytest.raises(IncompatibleSketches):
        compare(LCRS(8, 5, 1), other)


@pytest.mark.parametrize("load", [0.05, 0.25, 1.0])
def test_two_percent_counted_twice_hardly_show(load: float) -> None:
    """The test has the power that its documentation states, no more and no less."""
    rng, size, scores = np.random.default_rng(90), 10_000, []
    chunks = int(load * size)
    for _ in range(200):
        register = rng.integers(0, size, chunks)
        twice = np.concatenate([register, register[: chunks // 50]])
        scores.append(disagreement(LCRS.from_registers(np.bincount(twice, minlength=size), 255, 0)).score)
    assert 2.1 < np.mean(scores) < 3.0
    assert 0.1 < np.mean(np.array(scores) > 3) < 0.5
