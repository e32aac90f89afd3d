from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketches.exceptions import IncompatibleSketches
from sketches.hashing import hash_chunks, registers_of
from sketches.lcrs import LCRS, folds, level_counts

Names = Callable[..., list[str]]
SEED = 11
# There are few chunks and few registers, so chunks often share a register, and a chunk often occurs again.
batches = st.lists(st.integers(0, 30).map(lambda number: f"{number:064x}"), max_size=40)
taus = st.integers(1, 6) | st.just(255)


def made_of(n_prime: int, tau: int, chunks: list[str]) -> LCRS:
    sketch = LCRS(n_prime, tau, SEED)
    sketch.add(chunks)
    return sketch


def register(chunk: str, n_prime: int) -> int:
    return int(registers_of(hash_chunks([chunk], SEED), n_prime)[0])


@given(st.lists(st.tuples(st.booleans(), batches), max_size=6), taus)
def test_batches_count_like_one_chunk_at_a_time(steps: list[tuple[bool, list[str]]], tau: int) -> None:
    sketch, model = LCRS(8, tau, SEED), [0] * 8
    for adding, batch in steps:
        (sketch.add if adding else sketch.remove)(batch)
        for index in (register(chunk, 8) for chunk in batch):
            if adding:
                model[index] = min(model[index] + 1, tau)
            elif 0 < model[index] < tau:
                model[index] -= 1
    assert sketch.registers.tolist() == model
    assert sketch.saturated == model.count(tau)
    assert sketch.load() == sum(model) / 8


@given(batches, batches, taus)
def test_no_false_negatives(kept: list[str], removed: list[str], tau: int) -> None:
    sketch = made_of(8, tau, kept + removed)
    sketch.remove(removed)
    assert sketch.contains(kept).all()
    if not kept and tau == 255:
        assert not sketch.contains(removed).any()


def test_a_register_saturates_and_sticks(chunk_names: Names) -> None:
    (chunk,) = chunk_names(1)
    sketch = made_of(16, 3, [chunk] * 1000)
    assert sketch.registers.max() == 3
    sketch.remove([chunk] * 1000)
    assert sketch.contains([chunk]).all() and sketch.saturated == 1


def test_a_register_counts_up_to_255(chunk_names: Names) -> None:
    sketch = made_of(16, 255, chunk_names(1) * 254)
    assert sketch.registers.max() == 254
    sketch.add(chunk_names(1) * 2)
    assert sketch.registers.max() == 255


@given(batches, taus, st.integers(0, 3))
def test_a_folded_sketch_is_the_smaller_sketch(chunks: list[str], tau: int, doublings: int) -> None:
    folded = made_of(5 << doublings, tau, chunks).fold(5)
    assert folded.registers.tolist() == made_of(5, tau, chunks).registers.tolist()


def test_large_sums_saturate_instead_of_wrapping() -> None:
    half_full = LCRS.from_registers(np.array([200, 0, 100, 3]), 255, SEED)
    assert half_full.fold(2).registers.tolist() == [255, 3]
    assert half_full.merge(half_full).registers.tolist() == [255, 0, 200, 6]


@given(batches, batches, taus, st.integers(0, 2), st.integers(0, 2))
def test_a_merged_sketch_holds_both(one: list[str], two: list[str], tau: int, k: int, j: int) -> None:
    merged = made_of(5 << k, tau, one).merge(made_of(5 << j, tau, two))
    assert merged.registers.tolist() == made_of(5 << min(k, j), tau, one + two).registers.tolist()


@pytest.mark.parametrize("size", [4, 5, 7, 24, 0, -1])
def test_sizes_that_do_not_fold_are_refused(size: int) -> None:
    assert not folds(12, size)
    with pytest.raises(IncompatibleSketches):
        LCRS(12, 10, SEED).fold(size)


@pytest.mark.parametrize("other", [LCRS(9, 10, SEED), LCRS(12, 9, SEED), LCRS(12, 10, SEED + 1)])
def test_foreign_sketches_do_not_merge(other: LCRS) -> None:
    with pytest.raises(IncompatibleSketches):
        LCRS(12, 10, SEED).merge(other)


@pytest.mark.parametrize(("n_prime", "tau"), [(0, 1), (1, 0), (1, 256)])
def test_bad_shapes_are_refused(n_prime: int, tau: int) -> None:
    with pytest.raises(ValueError, match=r"must be|at least"):
        LCRS(n_prime, tau, SEED)


def test_merging_and_folding_leave_the_sources_alone(chunk_names: Names) -> None:
    sketch = made_of(8, 10, chunk_names(5))
    before = sketch.registers.copy()
    sketch.fold(8).add(chunk_names(9))
    sketch.merge(sketch).add(chunk_names(9))
    assert (sketch.registers == before).all()


def test_level_counts_of_the_seed(chunk_names: Names) -> None:
    """The example has five nodes, and ten chunks with three replicas each, without a collision."""
    sketches = [LCRS(10_000, 10, SEED) for _ in range(5)]
    for number, chunk in enumerate(chunk_names(10)):
        for replica in range(3):
            sketches[(number + replica) % 5].add([chunk])
    assert level_counts(sketches, 10).tolist() == [9990, 0, 0, 10, 0, 0]


@given(st.lists(st.tuples(st.integers(0, 2), batches), min_size=1, max_size=5), st.integers(1, 7))
def test_level_counts_by_hand(nodes: list[tuple[int, list[str]]], tau: int) -> None:
    sketches = [made_of(5 << doublings, 255, chunks) for doublings, chunks in nodes]
    n_prime = 5 << min(doublings for doublings, _ in nodes)
    levels = [0] * n_prime
    for _, chunks in nodes:
        for index in {register(chunk, n_prime) for chunk in chunks}:
            levels[index] += 1
    counts = level_counts(sketches, tau)
    highest = min(tau, len(nodes))
    assert counts.dtype == np.int64
    assert counts.tolist() == [[min(level, tau) for level in levels].count(value) for value in range(highest + 1)]


def test_level_counts_of_none_of_many_and_of_foreign_sketches(chunk_names: Names) -> None:
    assert level_counts([], 10).tolist() == [0]
    assert level_counts([made_of(1, 255, chunk_names(1))] * 300, 255).tolist() == [0] * 255 + [1]
    with pytest.raises(IncompatibleSketches):
        level_counts([LCRS(10, 10, SEED), LCRS(15, 10, SEED)], 10)
    with pytest.raises(IncompatibleSketches):
        level_counts([LCRS(10, 10, SEED), LCRS(10, 10, SEED + 1)], 10)


@pytest.mark.parametrize(("tau", "load"), [(1, 0.25), (2, 0.25), (3, 2.0), (10, 0.25), (10, 6.0)])
def test_registers_that_chunks_fill_are_not_stuck_but_those_that_chunks_left_are(tau: int, load: float) -> None:
    n_prime = 20_000
    chunks = int(load * n_prime)
    for seed in range(20):
        counts = np.bincount(np.random.default_rng(seed).integers(0, n_prime, chunks), minlength=n_prime)
        sketch = LCRS.from_registers(counts, tau, 1)
        assert sketch.stuck(chunks) < 1e-3 * n_prime
        sketch.registers[sketch.registers < tau] = tau
        assert sketch.stuck(chunks) > 0.01 * n_prime
    assert LCRS(4, 3, 1).stuck(0) == 0


def test_a_capped_sketch_is_what_a_smaller_tau_would_have_made() -> None:
    sketch = LCRS.from_registers([0, 1, 4, 9], 9, 1)
    assert sketch.capped(3).registers.tolist() == [0, 1, 3, 3] and sketch.capped(3).tau == 3
    assert sketch.capped(20).tau == 9
