import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sketches.estimators import union_estimate


def empty_registers(n_prime: int, chunks: int, trials: int) -> list[int]:
    rng = np.random.default_rng(20240501)
    occupied = np.zeros((trials, n_prime), np.bool_)
    occupied[np.arange(trials)[:, None], rng.integers(0, n_prime, (trials, chunks))] = True
    return [int(zero) for zero in n_prime - occupied.sum(axis=1)]


@pytest.mark.parametrize(("n_prime", "chunks"), [(1000, 5), (1000, 40), (1000, 250), (1000, 1000), (1000, 3000)])
def test_union_is_unbiased_and_its_interval_covers(n_prime: int, chunks: int) -> None:
    estimates = [union_estimate(zero, n_prime) for zero in empty_registers(n_prime, chunks, 4000)]
    t = chunks / n_prime
    sd = math.sqrt(n_prime * (math.expm1(t) - t))
    errors = np.array([estimate.estimate for estimate in estimates]) - chunks
    covered = [
        estimate.lower_bound <= chunks <= estimate.upper_bound
        for estimate in estimates
        if estimate.upper_bound is not None
    ]
    assert abs(errors.mean()) < 4 * sd / math.sqrt(len(errors)) + 0.01 * sd
    assert math.sqrt((errors**2).mean()) < 1.06 * sd
    assert 0.935 <= sum(covered) / len(estimates) <= (0.965 if sd >= 5 else 0.999)


def test_a_handful_of_empty_registers_is_enough() -> None:
    estimates = [union_estimate(zero, 1000) for zero in empty_registers(1000, 5000, 1000)]
    covered = [e.lower_bound <= 5000 and (e.upper_bound is None or e.upper_bound >= 5000) for e in estimates]
    assert np.mean([e.estimate for e in estimates if not e.saturated]) == pytest.approx(5000, abs=80)
    assert np.mean(covered) >= 0.93


def test_both_intervals_by_hand() -> None:
    wide = union_estimate(400, 1000)
    t = -math.log(0.4)
    expected, sd = 1000 * t - 0.75, math.sqrt(1000 * (1.5 - t))
    assert wide.estimate == pytest.approx(expected)
    assert (wide.lower_bound, wide.upper_bound) == pytest.approx((expected - 1.96 * sd, expected + 1.96 * sd))

    narrow = union_estimate(990, 1000)
    t = -math.log(0.99)
    expected, sd = 1000 * t - (1 / 0.99 - 1) / 2, math.sqrt(1000 * (1 / 0.99 - 1 - t))
    assert narrow.estimate == pytest.approx(expected)
    whole = math.floor(expected + 1.96 * sd + 0.5 / 0.99)
    assert narrow.lower_bound == 10
    assert narrow.upper_bound == pytest.approx(max(whole, expected))


def test_nothing_counted_is_exactly_nothing() -> None:
    empty = union_estimate(1000, 1000)
    assert (empty.estimate, empty.lower_bound, empty.upper_bound, empty.saturated) == (0, 0, 0, False)


@pytest.mark.parametrize(("n_prime", "bound"), [(1000, 1000 * math.log(1000 / 3)), (1, 1), (2, 2)])
def test_full_registers_give_a_bound(n_prime: int, bound: float) -> None:
    full = union_estimate(0, n_prime)
    assert (full.estimate, full.lower_bound, full.upper_bound, full.saturated) == (bound, bound, None, True)


@example((10, 1))
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_no_fewer_chunks_than_occupied_registers_and_more_the_fewer_are_empty(sizes: tuple[int, int]) -> None:
    n_prime, zero = sizes
    fuller, emptier = union_estimate(zero, n_prime), union_estimate(zero + 1, n_prime)
    assert min(fuller.estimate, fuller.lower_bound) >= n_prime - zero
    assert zero == 0 or fuller.estimate > emptier.estimate


@pytest.mark.parametrize(("zero", "n_prime"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_registers_are_refused(zero: int, n_prime: int) -> None:
    with pytest.raises(ValueError, match="cannot be empty"):
        union_estimate(zero, n_prime)


@given(st.integers(1, 10**6), st.integers(0, 10**6))
@example(10_000, 9_995)
def test_the_estimate_is_inside_its_interval(n_prime: int, zero: int) -> None:
    found = union_estimate(min(zero, n_prime), n_prime)
    assert found.lower_bound <= found.estimate
    assert found.upper_bound is None or found.estimate <= found.upper_bound
