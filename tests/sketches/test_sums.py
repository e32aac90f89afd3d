import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from sketches.estimators import Spectrum, spectrum_from_registers, spectrum_from_sums
from sketches.simulate.placement import mixture, sketch, uniform, weighted, zoned

SHARES = {1: 0.02, 2: 0.08, 3: 0.9}


def repeated(
    shares: dict[int, float], n_prime: int, load: float, tau: int, trials: int, most_replicas: int | None = None
) -> tuple[NDArray[np.int64], list[Spectrum]]:
    rng = np.random.default_rng(20240503)
    replicas = mixture(round(n_prime * load), shares)
    held = weighted(6).hold(replicas, rng)
    truth = np.array([np.sum(replicas == 1), np.sum(replicas == 2), np.sum(replicas >= 3)])
    sketches = (sketch(held, n_prime, rng, tau) for _ in range(trials))
    return truth, [spectrum_from_sums(registers, tau, 3, most_replicas) for registers in sketches]


@pytest.mark.parametrize("tau", [3, 10, 255])
def test_sums_tell_the_spectrum_saturated_or_not(tau: int) -> None:
    truth, spectra = repeated(SHARES, 2000, 1.0, tau, 160)
    errors = np.array([spectrum.counts for spectrum in spectra]) - truth
    sd = errors.std(axis=0)
    stated = np.sqrt(np.mean([np.diag(spectrum.covariance) for spectrum in spectra], axis=0))
    assert np.all(np.abs(errors.mean(axis=0)) < (0.1 + 4 / math.sqrt(160)) * sd)
    np.testing.assert_allclose(stated, sd, rtol=0.2)
    for index in range(3):
        answers = [spectrum.classes[index] for spectrum in spectra]
        covered = [e.lower_bound <= truth[index] <= (e.upper_bound or 0) for e in answers]
        assert 0.9 <= np.mean(covered) <= 0.995
    for answers, expected in (([s.union for s in spectra], 2000), ([s.average for s in spectra], 2.88)):
        covered = [e.lower_bound <= expected + 1e-9 and expected <= (e.upper_bound or 0) + 1e-9 for e in answers]
        assert np.mean(covered) >= 0.9


@pytest.mark.parametrize(
    ("load", "tau", "limit"), [(0.1, 255, 0.2), (1, 255, 0.8), (1, 10, 4), (3, 255, 2.5), (3, 20, 9)]
)
def test_sums_are_far_sharper_than_zeros(load: float, tau: int, limit: float) -> None:
    """One chunk in a hundred has two replicas, the others have three.

    ``limit`` bounds the root mean square error of the number of chunks with fewer than three replicas.
    """
    truth, spectra = repeated({2: 0.01, 3: 0.99}, 10_000, load, tau, 25)
    errors = [spectrum.counts[:2].sum() - truth[:2].sum() for spectrum in spectra]
    assert math.sqrt(np.mean(np.square(errors))) < limit
    assert all(s.below(3).lower_bound <= truth[1] + 3 * limit for s in spectra)


def log_likelihood(counts: NDArray[np.float64], sums: NDArray[np.int64], n_prime: int, tau: int) -> float:
    """Return the log likelihood of ``counts``, the numbers of chunks with l = 1, 2, … replicas.

    The sum of a register over all nodes has the generating function ``exp(sum_l lambda_l (x^l - 1))``. Here lambda_l is
    the number of chunks with l replicas, divided by the number of registers.
    """
    roots = np.exp(-2j * np.pi * np.arange(512) / 512)
    powers = sum(count / n_prime * (roots**level - 1) for level, count in enumerate(counts, start=1))
    probabilities = np.fft.ifft(np.exp(powers)).real
    probabilities[tau] = probabilities[tau:].sum()
    return float(np.bincount(sums, minlength=tau + 1) @ np.log(np.maximum(probabilities[: tau + 1], 1e-15)))


@pytest.mark.parametrize(("load", "tau"), [(0.3, 255), (2, 9), (3, 20), (3, 255)])
@pytest.mark.parametrize("shares", [SHARES, {2: 0.01, 3: 0.99}, {1: 0.3, 3: 0.7}])
def test_the_answer_has_the_greatest_likelihood(shares: dict[int, float], load: float, tau: int) -> None:
    rng = np.random.default_rng(5)
    registers = sketch(weighted(5).hold(mixture(round(3000 * load), shares), rng), 3000, rng, tau)
    spectrum = spectrum_from_sums(registers, tau, 3)
    sums = np.minimum(registers.sum(axis=0, dtype=np.int64), tau)
    best = log_likelihood(spectrum.counts, sums, 3000, tau)
    assert np.all(spectrum.counts >= 0)
    for direction in [*np.eye(3), [0, 1, -1], [1, 0, -1], [1, 1, -1], [1, -1, 0]]:
        for step in (-0.5, 0.5):
            other = np.maximum(spectrum.counts + step * np.array(direction), 1e-9)
            assert log_likelihood(other, sums, 3000, tau) <= best + 1e-4


def test_saturated_sums_may_hide_a_missing_replica() -> None:
    rng = np.random.default_rng(6)
    held = uniform(5).hold(mixture(1000, {2: 0.004, 3: 0.996}), rng)
    answers = [spectrum_from_sums(sketch(held, 1000, rng, 3), 3, 3).below(3) for _ in range(200)]
    assert any(answer.estimate == 0 for answer in answers)
    assert np.mean([e.lower_bound <= 4 <= (e.upper_bound or 0) for e in answers]) >= 0.93


def test_chunks_of_more_replicas_than_the_factor_pass_for_two_unless_expected() -> None:
    shares = {2: 0.05, 3: 0.85, 4: 0.1}
    truth, expected = repeated(shares, 5000, 1.0, 255, 20, most_replicas=4)
    _, unexpected = repeated(shares, 5000, 1.0, 255, 20)
    sd = math.sqrt(expected[0].covariance[:2, :2].sum())
    assert abs(np.mean([s.counts[:2].sum() for s in expected]) - 250) < sd
    assert np.mean([s.counts[:2].sum() for s in unexpected]) > 250 + 3 * sd
    assert len(expected[0].counts) == len(truth) == 3


def test_no_trace_of_missing_replicas() -> None:
    rng = np.random.default_rng(1)
    spectrum = spectrum_from_sums(sketch(zoned(5).hold(np.full(2000, 3), rng), 2000, rng), 255, 3)
    assert (spectrum.below(3).estimate, spectrum.below(3).upper_bound) == (0, 0)
    assert (spectrum.union.estimate, spectrum.union.lower_bound, spectrum.union.upper_bound) == (2000, 2000, 2000)
    assert spectrum.average.estimate == pytest.approx(3) and spectrum.average.lower_bound == pytest.approx(3)


def test_one_missing_replica_is_seen() -> None:
    rng = np.random.default_rng(2)
    held = uniform(5).hold(mixture(2000, {2: 0.0005, 3: 0.9995}), rng)
    for _ in range(30):
        assert spectrum_from_sums(sketch(held, 2000, rng), 255, 3).below(3).estimate == pytest.approx(1, abs=0.2)


def test_counts_left_over_after_a_crash_pass_for_single_replicas() -> None:
    """Leftover counts hardly change which registers are zero, so estimates from zeros hardly see them.

    Estimates from zeros are therefore used first, and a difference between them and estimates from sums means drift.
    """
    rng = np.random.default_rng(3)
    registers = sketch(uniform(5).hold(np.full(2000, 3), rng), 2000, rng)
    occupied = np.flatnonzero(registers[0])
    registers[0, occupied[:40]] += 1
    assert spectrum_from_sums(registers, 255, 3).below(3).lower_bound > 20
    assert spectrum_from_registers(registers, 3).below(3).estimate == 0


@pytest.mark.parametrize("nodes", [0, 1, 5])
@pytest.mark.parametrize("n_prime", [1, 1000])
def test_empty_sketches_hold_nothing(nodes: int, n_prime: int) -> None:
    spectrum = spectrum_from_sums(np.zeros((nodes, n_prime), np.uint8), 10, 3)
    for answer in (*spectrum.classes, spectrum.union, spectrum.average, spectrum.below(3)):
        assert (answer.estimate, answer.lower_bound, answer.upper_bound, answer.saturated) == (0, 0, 0, False)


def test_hardly_an_empty_register_leaves_bounds() -> None:
    registers = np.ones((3, 200), np.uint8)
    registers[:, :19] = 0
    registers[1:, 50:53] = 0
    spectrum = spectrum_from_sums(registers, 10, 3)
    assert spectrum.saturated and spectrum.below(3).lower_bound == 3 and spectrum.below(3).upper_bound is None


def test_a_tau_below_the_factor_leaves_bounds() -> None:
    rng = np.random.default_rng(4)
    registers = sketch(uniform(5).hold(mixture(400, SHARES), rng), 1000, rng, 2)
    spectrum = spectrum_from_sums(registers, 2, 3)
    assert not spectrum.complete and spectrum.below(3).saturated and spectrum.average.saturated
    assert spectrum.union.estimate == pytest.approx(400, abs=60)
    assert spectrum.classes[0].lower_bound <= 8 <= (spectrum.classes[0].upper_bound or 0)


@given(
    st.tuples(st.integers(0, 5), st.integers(1, 60)).flatmap(
        lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 2, 3, 255]))
    ),
    st.sampled_from([1, 2, 3, 10, 255]),
    st.integers(1, 6),
    st.integers(1, 8),
)
def test_every_answer_is_finite_and_inside_its_interval(
    registers: NDArray[np.uint8], tau: int, factor: int, most: int
) -> None:
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        spectrum = spectrum_from_sums(np.minimum(registers, tau).astype(np.uint8), tau, factor, most)
    assert np.isfinite(spectrum.counts).all() and np.isfinite(spectrum.covariance).all()
    for answer in (*spectrum.classes, spectrum.below(factor), spectrum.average):
        assert answer.lower_bound >= 0 and math.isfinite(answer.estimate)
        assert answer.upper_bound is None or answer.lower_bound <= answer.estimate <= answer.upper_bound < math.inf


@pytest.mark.parametrize(("shape", "tau", "factor"), [((3,), 9, 3), ((3, 0), 9, 3), ((3, 5), 0, 3), ((3, 5), 9, 0)])
def test_impossible_registers_are_refused(shape: tuple[int, ...], tau: int, factor: int) -> None:
    with pytest.raises(ValueError, match=r"no sums|at least 1|a row for each node|no registers"):
        spectrum_from_sums(np.zeros(shape, np.uint8), tau, factor)
