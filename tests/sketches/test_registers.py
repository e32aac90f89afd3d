from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sketches.estimators import average_replication, spectrum_from_registers, spectrum_from_sums
from sketches.estimators.balance import node_balance
from sketches.estimators.blast import blast_radius, confinement_scores, worst_sets
from sketches.estimators.membership import candidates, holders
from sketches.estimators.occupancy import count_occupancy
from sketches.estimators.overlap import overlap, pairwise_overlaps
from sketches.lcrs import LCRS
from sketches.registers import checked_registers

Ask = Callable[[NDArray[Any]], object]

ESTIMATORS: dict[str, Ask] = {
    "occupancy": lambda registers: count_occupancy(registers, 1),
    "spectrum": lambda registers: spectrum_from_registers(registers, 3),
    "sums": lambda registers: spectrum_from_sums(registers, 9, 3),
    "average": lambda registers: average_replication(registers, 9, 10),
    "pairs": pairwise_overlaps,
    "overlap": overlap,
    "balance": lambda registers: node_balance(registers, np.ones(len(registers))),
    "blast radius": lambda registers: blast_radius(registers, (0,)),
    "worst sets": lambda registers: worst_sets(registers, 1, 1),
    "confinement": lambda registers: confinement_scores(registers, [(0,)], np.ones(1)),
}
BY_SUM = ("sums", "average")
SOUND = np.random.default_rng(70).poisson(0.2, (3, 2000)).astype(np.uint8)


@pytest.mark.parametrize("ask", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize(
    ("registers", "message"),
    [
        (SOUND.T, "transposed"),
        (SOUND[0], "a row for each node"),
        (SOUND[None], "a row for each node"),
        (SOUND[:, :0], "no registers"),
        (SOUND.astype(np.float64), "integers"),
        (SOUND.astype(np.int64) - 1, "not within 0"),
        (SOUND.astype(np.int64) + 255, "not within 0"),
    ],
)
def test_no_estimator_answers_what_is_no_matrix_of_registers(ask: Ask, registers: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(registers)


@pytest.mark.parametrize("ask", ESTIMATORS.values(), ids=ESTIMATORS)
def test_integers_of_any_width_are_registers(ask: Ask) -> None:
    assert repr(ask(SOUND)) == repr(ask(SOUND.astype(np.int64)))


@pytest.mark.parametrize("name", BY_SUM)
def test_no_register_is_above_tau(name: str) -> None:
    with pytest.raises(ValueError, match="not within 0 and 9"):
        ESTIMATORS[name](np.where(SOUND > 1, 10, SOUND).astype(np.uint8))


@pytest.mark.parametrize("values", [[[-1]], [[0.5]], [[6]]])
def test_no_chunk_falls_into_what_is_no_register(values: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="registers"):
        candidates(np.array(values), [1], 10, 5, 0.5, 0.0)
    with pytest.raises(ValueError, match="registers"):
        holders(np.array(values), 1, [1], 1.0, 10, 5, 0.5, 0.0)


def test_few_registers_are_not_taken_for_transposed_ones() -> None:
    """A cluster may be created with sketches of a single register."""
    assert checked_registers(np.zeros((5, 1), np.uint8)).shape == (5, 1)
    assert checked_registers(np.zeros((0, 9), np.uint8)).shape == (0, 9)


def test_registers_of_one_byte_are_not_copied() -> None:
    assert checked_registers(SOUND) is SOUND or np.shares_memory(checked_registers(SOUND), SOUND)


@pytest.mark.parametrize("registers", [[-1], [1, -1], [0.5], [[1]], 3, []])
def test_no_sketch_is_made_of_what_is_no_register(registers: Any) -> None:
    with pytest.raises(ValueError, match="register"):
        LCRS.from_registers(registers, 9, 1)


def test_what_is_above_tau_is_saturated() -> None:
    assert LCRS.from_registers([0, 9, 300], 9, 1).registers.tolist() == [0, 9, 9]
