import math
from collections import Counter
from collections.abc import Callable
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from sketches.estimators import (
    Estimate,
    Spectrum,
    occupancy,
    spectrum_from_levels,
    spectrum_from_registers,
    spectrum_from_sums,
    union_estimate,
)
from sketches.simulate.placement import Placement, mixture, sketch, uniform, weighted, zoned

Registers = NDArray[np.uint8]
SHARES = {1: 0.02, 2: 0.08, 3: 0.9}
few_registers = st.tuples(st.integers(0, 5), st.integers(1, 60)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 0, 1, 255]))
)


def levels_of(registers: Registers) -> NDArray[np.int64]:
    return np.bincount(np.count_nonzero(registers, axis=0), minlength=len(registers) + 1)


def subsets_of(nodes: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(chain.from_iterable(combinations(nodes, size) for size in range(len(nodes) + 1)))


def empty_outside(registers: Registers, inside: tuple[int, ...]) -> int:
    """Return F(B), the number of registers that are zero on all nodes outside the set B, which is ``inside``."""
    outside = [node for node in range(len(registers)) if node not in inside]
    return int(np.count_nonzero(~registers[outside].any(axis=0)))


def repeated(
    placement: Placement,
    n_prime: int,
    load: float,
    trials: int,
    estimate: Callable[[Registers], Spectrum],
    *,
    shares: dict[int, float] = SHARES,
    replace_each: bool = False,
) -> tuple[NDArray[np.int64], list[Spectrum]]:
    """Return the true numbers of chunks with one, two and three replicas, and the spectrum of each trial.

    Each trial hashes the same chunks into other registers. With ``replace_each``, each trial also places the chunks on
    nodes again.
    """
    rng = np.random.default_rng(20240502)
    replicas = mixture(round(n_prime * load), shares)
    held = placement.hold(replicas, rng)
    spectra = []
    for _ in range(trials):
        held = placement.hold(replicas, rng) if replace_each else held
        spectra.append(estimate(sketch(held, n_prime, rng)))
    return np.array([np.sum(replicas == level) for level in (1, 2, 3)]), spectra


def check_accuracy(truth: NDArray[np.int64], spectra: list[Spectrum]) -> None:
    """Assert that the spectra are unbiased and vary as much as they state, and that all intervals cover the truth."""
    errors = np.array([spectrum.counts for spectrum in spectra]) - truth
    sd = errors.std(axis=0)
    stated = np.sqrt(np.mean([np.diag(spectrum.covariance) for spectrum in spectra], axis=0))
    assert np.all(np.abs(errors.mean(axis=0)) < (0.03 + 4 / math.sqrt(len(spectra))) * sd)
    np.testing.assert_allclose(stated, sd, rtol=0.03 + 3 / math.sqrt(2 * len(spectra)))
    below, average = int(truth[:2].sum()), float(truth @ [1, 2, 3] / truth.sum())
    covers: dict[str, list[tuple[Estimate, float]]] = {
        "below": [(s.below(3), below) for s in spectra],
        "average": [(s.average, average) for s in spectra],
        "union": [(s.union, int(truth.sum())) for s in spectra],
        **{f"class {i}": [(s.classes[i], int(truth[i])) for s in spectra] for i in range(3)},
    }
    for name, answers in covers.items():
        share = np.mean([e.upper_bound is not None and e.lower_bound <= x <= e.upper_bound for e, x in answers])
        assert share + 1.65 * math.sqrt(0.05 * 0.95 / len(answers)) >= 0.93, (name, share)
        assert share <= 0.985, (name, share)


@pytest.mark.parametrize("placement", [uniform(5), weighted(5), zoned(5)], ids=["uniform", "weighted", "zoned"])
def test_registers_tell_the_spectrum_of_any_placement(placement: Placement) -> None:
    truth, spectra = repeated(placement, 2000, 1.0, 500, lambda registers: spectrum_from_registers(registers, 3))
    check_accuracy(truth, spectra)


def test_the_bias_of_a_full_sketch_is_taken_off() -> None:
    truth, spectra = repeated(zoned(6), 1000, 2.7, 1400, lambda registers: spectrum_from_registers(registers, 3))
    assert np.mean([spectrum.hidden[0] for spectrum in spectra]) > 13
    check_accuracy(truth, spectra)


def test_levels_tell_the_spectrum_of_an_exchangeable_placement() -> None:
    def estimate(registers: Registers) -> Spectrum:
        return spectrum_from_levels(levels_of(registers), 5, 3)

    check_accuracy(*repeated(uniform(5), 2000, 1.0, 500, estimate, replace_each=True))


def test_the_bias_of_full_levels_is_taken_off() -> None:
    def estimate(registers: Registers) -> Spectrum:
        return spectrum_from_levels(levels_of(registers), 4, 3)

    shares = {1: 0.3, 2: 0.3, 3: 0.4}
    check_accuracy(*repeated(uniform(4), 400, 2.3, 1500, estimate, shares=shares, replace_each=True))


def test_levels_mislead_where_nodes_are_not_alike_and_registers_do_not() -> None:
    rng = np.random.default_rng(2)
    replicas = mixture(10_000, {1: 0.3, 2: 0.4, 3: 0.3})
    held = Placement(np.array([8.0, 8, 1, 1, 1]), np.arange(5)).hold(replicas, rng)
    sketches = [sketch(held, 10_000, rng) for _ in range(20)]
    by_levels = [spectrum_from_levels(levels_of(registers), 5, 3).counts[1] for registers in sketches]
    by_registers = [spectrum_from_registers(registers, 3).counts[1] for registers in sketches]
    sd = math.sqrt(spectrum_from_registers(sketches[0], 3).covariance[1, 1])
    assert np.mean(by_levels) - 4000 > 4 * sd
    assert abs(np.mean(by_registers) - 4000) < sd


@given(few_registers, st.integers(1, 4))
def test_counts_are_moebius_sums_of_logarithms(registers: Registers, replication_factor: int) -> None:
    spectrum = spectrum_from_registers(registers, replication_factor)
    if spectrum.saturated:
        return
    nodes, n_prime = registers.shape

    def confined(inside: tuple[int, ...]) -> float:
        free = empty_outside(registers, inside)
        return float(n_prime * math.log(free / n_prime) + (n_prime / free - 1) / 2)

    for level in range(1, spectrum.resolution):
        exactly = math.fsum(
            (1 - 2 * ((level - len(part)) % 2)) * confined(part)
            for inside in combinations(range(nodes), level)
            for part in subsets_of(inside)
        )
        assert spectrum.counts[level - 1] == pytest.approx(exactly, abs=1e-6)
    assert spectrum.counts.sum() == pytest.approx(spectrum.union.estimate, abs=0.01)


def test_the_covariance_is_that_of_unions_of_nodes() -> None:
    """For sets of nodes S and T, ``Cov(L(S), L(T)) = N' g(w/N')`` with ``g(x) = e^x - 1 - x``.

    L(S) is the estimated union of the nodes in S, and ``w = L(S) + L(T) - L(S and T together)``.
    """
    rng, n_prime, nodes = np.random.default_rng(3), 20_000, 4
    registers = sketch(weighted(nodes).hold(mixture(20_000, {1: 0.2, 2: 0.3, 3: 0.5}), rng), n_prime, rng)
    sets = subsets_of(tuple(range(nodes)))
    union = {inside: -n_prime * math.log(empty_outside(registers, inside) / n_prime) for inside in sets}
    # A chunk is confined to a set B of nodes if no other node has it. The chunks not confined to B are the union of the
    # nodes outside B. The number of chunks with l replicas is a weighted sum of unions of nodes.
    weights = np.zeros((3, len(sets)))
    for level in (1, 2):
        for inside in combinations(range(nodes), level):
            for part in subsets_of(inside):
                weights[level - 1, sets.index(part)] -= (-1) ** (level - len(part))
    weights[2] = -weights[:2].sum(axis=0) + [inside == () for inside in sets]
    shared = np.array([[union[a] + union[b] - union[tuple(sorted({*a} & {*b}))] for b in sets] for a in sets]) / n_prime
    expected = weights @ (n_prime * (np.expm1(shared) - shared)) @ weights.T
    np.testing.assert_allclose(spectrum_from_registers(registers, 3).covariance, expected, rtol=2e-3, atol=2)


def test_no_trace_of_missing_replicas() -> None:
    rng = np.random.default_rng(4)
    registers = sketch(zoned(5).hold(np.full(300, 3), rng), 1000, rng)
    for spectrum in (spectrum_from_registers(registers, 3), spectrum_from_levels(levels_of(registers), 5, 3)):
        union = union_estimate(int(levels_of(registers)[0]), 1000)
        assert spectrum.counts.tolist() == [0, 0, union.estimate]
        below, average = spectrum.below(3), spectrum.average
        assert (below.estimate, below.lower_bound, below.upper_bound) == (0, 0, math.ceil(1.96**2 * spectrum.hidden[2]))
        assert (average.estimate, average.upper_bound) == (3, 3)
        missing = 2 * 1.96**2 * spectrum.hidden[2]  # Each chunk that the registers cannot show may lack two replicas.
        assert average.lower_bound == pytest.approx(3 - missing / union.estimate)


def test_a_register_proves_what_an_estimate_may_deny() -> None:
    registers = np.zeros((4, 100), np.uint8)
    registers[:3, :70] = 1
    registers[0, 70:74] = 1
    for spectrum in (spectrum_from_registers(registers, 3), spectrum_from_levels(levels_of(registers), 4, 3)):
        assert spectrum.below(3).lower_bound >= 4 and spectrum.classes[0].lower_bound >= 4


def test_a_cap_at_the_replication_factor_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    levels = levels_of(sketch(uniform(8).hold(mixture(500, SHARES), rng), 1000, rng))
    capped = np.append(levels[:3], levels[3:].sum())
    assert spectrum_from_levels(capped, 8, 3).classes == spectrum_from_levels(levels, 8, 3).classes
    assert spectrum_from_levels(capped, 8, 3).average == spectrum_from_levels(levels, 8, 3).average


def test_a_cap_below_the_replication_factor_leaves_bounds() -> None:
    rng = np.random.default_rng(6)
    levels = levels_of(sketch(uniform(8).hold(mixture(500, SHARES), rng), 1000, rng))
    whole = spectrum_from_levels(levels, 8, 3)
    capped = spectrum_from_levels([levels[0], levels[1], levels[2:].sum()], 8, 3)
    assert not capped.complete and len(capped.classes) == 2
    assert capped.classes[0] == whole.classes[0] and capped.union == whole.union
    below, average = capped.below(3), capped.average
    assert below.saturated and below.upper_bound is None and below.lower_bound == whole.below(2).lower_bound
    assert average.saturated and average.upper_bound is None and average.lower_bound <= 2


def test_too_many_sets_of_nodes_leave_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    registers = sketch(uniform(8).hold(mixture(500, SHARES), rng), 1000, rng)
    whole = spectrum_from_registers(registers, 3)
    monkeypatch.setattr(occupancy, "MAX_TERMS", 20)
    partial = spectrum_from_registers(registers, 3)
    assert whole.complete and not partial.complete
    assert partial.classes[0] == whole.classes[0]
    assert partial.below(3).saturated and partial.below(3).lower_bound == whole.below(2).lower_bound


@pytest.mark.parametrize("nodes", [1, 2])
def test_with_fewer_nodes_than_replicas_all_chunks_are_below_target(nodes: int) -> None:
    rng = np.random.default_rng(8)
    spectrum = spectrum_from_registers(sketch(uniform(nodes).hold(np.full(200, 3), rng), 1000, rng), 3)
    assert spectrum.complete and len(spectrum.classes) == nodes
    assert spectrum.below(3) == spectrum.union and spectrum.classes[-1].estimate == pytest.approx(200, abs=30)
    assert spectrum.average.estimate == nodes and not spectrum.average.saturated


def test_one_replica_is_all_that_is_asked_for() -> None:
    rng = np.random.default_rng(9)
    spectrum = spectrum_from_registers(sketch(uniform(4).hold(np.full(200, 2), rng), 1000, rng), 1)
    assert spectrum.classes == (spectrum.union,) and spectrum.average.estimate == 1
    assert (spectrum.below(1).estimate, spectrum.below(1).upper_bound) == (0, 0)
    assert spectrum.below(2).saturated


@pytest.mark.parametrize("nodes", [0, 1, 5])
@pytest.mark.parametrize("n_prime", [1, 10, 1000])
def test_empty_sketches_hold_nothing(nodes: int, n_prime: int) -> None:
    spectrum = spectrum_from_registers(np.zeros((nodes, n_prime), np.uint8), 3)
    assert not spectrum.saturated
    for answer in (*spectrum.classes, spectrum.union, spectrum.average, spectrum.below(3)):
        assert (answer.estimate, answer.lower_bound, answer.upper_bound, answer.saturated) == (0, 0, 0, False)


@pytest.mark.parametrize("zero", [0, 19])
def test_hardly_an_empty_register_leaves_bounds(zero: int) -> None:
    registers = np.zeros((3, 200), np.uint8)
    registers[:, zero:] = 1
    registers[1:, zero : zero + 7] = 0
    for spectrum in (spectrum_from_registers(registers, 3), spectrum_from_levels(levels_of(registers), 3, 3)):
        assert spectrum.saturated and spectrum.union == union_estimate(zero, 200)
        below, average = spectrum.below(3), spectrum.average
        assert (below.estimate, below.lower_bound, below.upper_bound, below.saturated) == (7, 7, None, True)
        assert (average.lower_bound, average.upper_bound, average.saturated) == (1, None, True)
        assert [answer.lower_bound for answer in spectrum.classes] == [7, 0, 0]
    registers[:, 0:20] = 0
    assert not spectrum_from_registers(registers, 3).saturated


@given(few_registers, st.integers(1, 7), st.integers(1, 9))
def test_every_answer_is_finite_and_inside_its_interval(registers: Registers, factor: int, target: int) -> None:
    levels = levels_of(registers)
    with np.errstate(all="raise"):
        for spectrum in (
            spectrum_from_registers(registers, factor),
            spectrum_from_levels(levels, len(registers), factor),
        ):
            answers = (*spectrum.classes, spectrum.below(target), spectrum.average)
            assert all(math.isfinite(answer.estimate) and answer.lower_bound >= 0 for answer in answers)
            assert all(answer.upper_bound is None or math.isfinite(answer.upper_bound) for answer in answers)
            for answer in (*spectrum.classes[:-1], spectrum.average):
                assert answer.lower_bound <= answer.estimate <= (answer.upper_bound or math.inf)
                assert answer.saturated == (answer.upper_bound is None)
            assert spectrum.below(target).lower_bound >= levels[1 : min(target, spectrum.resolution)].sum()


@given(few_registers, st.integers(0, 5))
def test_patterns_count_registers_by_their_nodes(registers: Registers, depth: int) -> None:
    counted = occupancy.count_occupancy(registers, depth)
    seen = Counter(tuple(np.flatnonzero(column).tolist()) for column in registers.T)
    assert counted.level_counts.tolist() == levels_of(registers).tolist()
    assert len(counted.patterns) == min(depth, len(registers)) + 1
    for size, pattern in enumerate(counted.patterns):
        sets = [tuple(row) for row in occupancy.subsets(len(registers), size).tolist()]
        assert sorted(sets) == list(combinations(range(len(registers)), size))
        assert pattern.tolist() == [seen[nodes] for nodes in sets]


@pytest.mark.parametrize("nodes", [50, 300])
def test_many_nodes(nodes: int) -> None:
    rng = np.random.default_rng(10)
    spectrum = spectrum_from_registers(sketch(uniform(nodes).hold(mixture(500, SHARES), rng), 2000, rng), 3)
    assert spectrum.complete
    np.testing.assert_allclose(spectrum.counts, [10, 40, 450], atol=25)


@pytest.mark.parametrize(
    ("levels", "nodes", "factor"),
    [([], 0, 3), ([5], 1, 3), ([1, 2, 3], 1, 3), ([0, 0], 1, 3), ([3, -1], 1, 3), ([3, 1], 1, 0)],
)
def test_impossible_levels_are_refused(levels: list[int], nodes: int, factor: int) -> None:
    with pytest.raises(ValueError, match=r"level counts|at least 1"):
        spectrum_from_levels(levels, nodes, factor)


@pytest.mark.parametrize(("shape", "factor"), [((3,), 3), ((3, 0), 3), ((3, 5), 0)])
def test_impossible_registers_are_refused(shape: tuple[int, ...], factor: int) -> None:
    with pytest.raises(ValueError, match=r"a row for each node|no registers|at least 1"):
        spectrum_from_registers(np.zeros(shape, np.uint8), factor)


@given(st.floats(1, 1e7))
@example(96.25609168420155)  # With this number, 3 * chunks / chunks is 2.9999999999999996.
@example(2791.1691919265822)
def test_the_average_of_a_healthy_cluster_is_its_factor(chunks: float) -> None:
    """Rounding must not put the average below the factor: an interval without the factor says that replicas are
    missing.
    """
    covariance, hidden = np.diag([0.0, 0.0, 50.0]), np.array([0.0, 0.1, 0.2])
    union = Estimate(chunks, chunks - 1, chunks + 1, saturated=False)
    counts = np.array([0.0, 0.0, chunks])
    average = Spectrum(5, 3, union, counts, covariance, hidden, np.zeros(3, np.int64), saturated=False).average
    assert average.lower_bound < average.estimate == average.upper_bound == 3


@pytest.mark.parametrize("chunks", [96, 1820, 2718])
def test_the_average_of_healthy_sketches_is_their_factor(chunks: int) -> None:
    rng = np.random.default_rng(80)
    for nodes in (3, 4, 6):
        registers = sketch(uniform(nodes).hold(np.full(chunks, 3), rng), 2000, rng)
        by_level = spectrum_from_levels(levels_of(registers), nodes, 3)
        for spectrum in (spectrum_from_registers(registers, 3), by_level, spectrum_from_sums(registers, 255, 3)):
            assert spectrum.average.upper_bound == 3
