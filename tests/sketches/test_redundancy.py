import numpy as np
import pytest
from numpy.typing import NDArray

from sketches.estimators import (
    alarming,
    average_replication,
    below_targets,
    lost_chunks,
    proven_below,
    spectrum_from_registers,
    spectrum_from_sums,
    union_estimate,
)
from sketches.simulate.placement import Placement, mixture, sketch, uniform, weighted, zoned


def levels_of(registers: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.bincount(np.count_nonzero(registers, axis=0), minlength=len(registers) + 1)


def targets_of(replicas: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(replicas)


def test_low_levels_prove_and_the_last_one_may_not() -> None:
    assert proven_below([90, 2, 1, 7], 3, 3) == 3
    assert proven_below([90, 2, 1, 7], 3, 4) == 10  # The target is four: even chunks on all three nodes lack a copy.
    assert proven_below([90, 2, 1, 7], 5, 4) == 3  # The last level counts registers on three nodes or more.
    assert proven_below([90, 2, 1, 7], 5, 1) == 0
    assert proven_below([90], 0, 3) == 0


@pytest.mark.parametrize("placement", [weighted(5), zoned(5)], ids=["weighted", "zoned"])
def test_three_chunks_with_a_missing_replica_are_found(placement: Placement) -> None:
    """At a load of a tenth, other chunks hide each chunk with probability .095.

    In one of a thousand runs, all three are hidden.
    """
    rng, chunks = np.random.default_rng(1), 10_000
    replicas = np.full(chunks, 3)
    clean, replicas[:3] = placement.hold(replicas, rng), 2
    missing = placement.hold(replicas, rng)
    found = 0
    for _ in range(60):
        registers = sketch(missing, 100_000, rng)
        spectrum = spectrum_from_registers(registers, 3)
        found += alarming(spectrum, [0, 0, 0, chunks], 0)
        assert alarming(spectrum, [0, 0, 0, chunks], 0) == (proven_below(levels_of(registers), 5, 3) > 0)
        assert not alarming(spectrum, [0, 0, 0, chunks], 3)  # An upload under way may pin these three chunks.
        assert not alarming(spectrum_from_registers(sketch(clean, 100_000, rng), 3), [0, 0, 0, chunks], 0)
    assert found >= 59


def test_proof_never_exceeds_the_truth() -> None:
    rng = np.random.default_rng(2)
    held = weighted(5).hold(mixture(2000, {1: 0.05, 2: 0.1, 3: 0.85}), rng)
    for n_prime in (100, 1000, 10_000):
        for _ in range(20):
            assert proven_below(levels_of(sketch(held, n_prime, rng)), 5, 3) <= 300
            assert proven_below(levels_of(sketch(held, n_prime, rng)), 5, 2) <= 100


@pytest.mark.parametrize(("shift", "least", "most"), [(0, 0, 3), (126, 56, 60)])
def test_a_shift_among_mixed_targets_is_seen(shift: int, least: int, most: int) -> None:
    """The shift is 4.6 standard deviations, like a shift of .4 % of 10^5 chunks in 10^6 registers."""
    rng, half = np.random.default_rng(3), 5000
    held = weighted(5).hold(np.repeat([2, 3], [half + shift, half - shift]), rng)
    alarms = 0
    for _ in range(60):
        spectrum = spectrum_from_registers(sketch(held, 100_000, rng), 3)
        shifted = below_targets(spectrum, [0, 0, half, half])
        assert shifted.upper_bound is None and not shifted.saturated
        alarms += alarming(spectrum, [0, 0, half, half], 0)
    assert least <= alarms <= most


def test_mixed_targets_bound_from_below() -> None:
    rng = np.random.default_rng(4)
    targets = mixture(4000, {1: 0.2, 2: 0.3, 3: 0.5})
    replicas = np.where(np.arange(4000) % 10 == 0, np.maximum(targets - 1, 1), targets)
    truth = int(np.sum(replicas < targets))
    held = weighted(6).hold(replicas, rng)
    answers = [
        below_targets(spectrum_from_registers(sketch(held, 20_000, rng), 3), targets_of(targets)) for _ in range(60)
    ]
    assert np.mean([answer.lower_bound <= truth for answer in answers]) >= 0.95
    # In truth, 320 chunks have fewer replicas than they should have. `max_l (F(l) - F_target(l))` finds only the 200
    # chunks at l = 2.
    assert np.mean([answer.estimate for answer in answers]) == pytest.approx(200, abs=40)
    sums = [spectrum_from_sums(sketch(held, 20_000, rng), 255, 3) for _ in range(20)]
    assert np.mean([below_targets(s, targets_of(targets)).estimate for s in sums]) == pytest.approx(200, abs=15)


def test_several_noisy_levels_cost_some_certainty() -> None:
    rng = np.random.default_rng(8)
    spectrum = spectrum_from_registers(
        sketch(uniform(5).hold(mixture(9000, {1: 0.4, 2: 0.5, 3: 0.1}), rng), 9000, rng), 3
    )
    single, several = below_targets(spectrum, [0, 0, 4000, 5000]), below_targets(spectrum, [0, 1, 3999, 5000])
    assert single.lower_bound == max(spectrum.below(2).lower_bound, spectrum.below(3).lower_bound - 4000)
    assert several.lower_bound < single.lower_bound - 5


def test_one_common_target_needs_no_bound() -> None:
    rng = np.random.default_rng(5)
    spectrum = spectrum_from_registers(sketch(uniform(5).hold(mixture(900, {2: 0.1, 3: 0.9}), rng), 2000, rng), 3)
    assert below_targets(spectrum, [0, 0, 0, 900]) == spectrum.below(3)
    assert below_targets(spectrum, [0, 0, 900, 0]) == spectrum.below(2)
    assert below_targets(spectrum, []) == below_targets(spectrum, [0, 0]) == spectrum.below(3)


def test_targets_beyond_the_nodes_are_all_missed() -> None:
    rng = np.random.default_rng(6)
    spectrum = spectrum_from_registers(sketch(uniform(2).hold(np.full(500, 2), rng), 2000, rng), 4)
    assert below_targets(spectrum, [0, 0, 0, 0, 500]) == spectrum.union
    mixed = below_targets(spectrum, [0, 0, 300, 0, 200])
    assert mixed.lower_bound <= 200 <= mixed.estimate + 60


def test_lost_chunks_are_those_on_record_less_the_union() -> None:
    union = union_estimate(700, 1000)
    lost = lost_chunks(union, 500)
    assert union.upper_bound is not None
    assert lost.estimate == 500 - union.estimate
    assert (lost.lower_bound, lost.upper_bound) == (500 - union.upper_bound, 500 - union.lower_bound)
    none = lost_chunks(union, 300)
    assert (none.estimate, none.lower_bound, none.upper_bound, none.saturated) == (0, 0, 0, False)
    full = lost_chunks(union_estimate(0, 1000), 9000)
    assert (full.estimate, full.lower_bound, full.saturated) == (0, 0, True)
    assert full.upper_bound == 9000 - union_estimate(0, 1000).lower_bound


def test_average_replication_is_exact_until_a_register_is_saturated() -> None:
    rng = np.random.default_rng(7)
    held = weighted(5).hold(mixture(800, {1: 0.25, 2: 0.25, 3: 0.5}), rng)
    exact = average_replication(sketch(held, 1000, rng, 20), 20, 800)
    assert (exact.estimate, exact.lower_bound, exact.upper_bound) == (2.25, 2.25, 2.25)
    capped = average_replication(sketch(held, 100, rng, 5), 5, 800)
    assert capped.saturated and capped.upper_bound is None and 1 < capped.lower_bound < 2.25
    assert average_replication(np.zeros((0, 10), np.uint8), 5, 0).upper_bound == 0
    with pytest.raises(ValueError, match="-1 chunks"):
        average_replication(np.zeros((2, 10), np.uint8), 5, -1)
