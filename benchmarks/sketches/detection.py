"""Measures how often missing replicas are detected, how often alarms are false, and how often lookups are wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sketches.estimators import alarming, proven_below, spectrum_from_registers
from sketches.estimators.membership import false_positive_rate
from sketches.estimators.occupancy import count_occupancy
from sketches.lcrs import LCRS
from sketches.simulate.placement import sketch, weighted

NODES = 5
HASHINGS = 10
"""The number of times that each placement is hashed."""


def proofs(n_prime: int, chunks: int, missing: int, runs: int, seed: int) -> int:
    """Count the runs in which a register proves a missing replica; ``missing`` chunks lack one of three replicas."""
    rng, found = np.random.default_rng(seed), 0
    replicas = np.full(chunks, 3)
    replicas[:missing] = 2
    for run in range(runs):
        if run % HASHINGS == 0:
            held = weighted(NODES).hold(replicas, rng)
        levels = count_occupancy(sketch(held, n_prime, rng), 0).level_counts
        found += proven_below(levels, NODES, 3) > 0
    return found


def shifts(n_prime: int, chunks: int, missing: int, runs: int, seed: int) -> int:
    """Count alarms if half of the chunks should have two replicas and half three, and ``missing`` chunks of the second
    half have two.
    """
    rng, alarms, half = np.random.default_rng(seed), 0, chunks // 2
    replicas = np.repeat([2, 3], [half + missing, half - missing])
    for run in range(runs):
        if run % HASHINGS == 0:
            held = weighted(NODES).hold(replicas, rng)
        alarms += alarming(spectrum_from_registers(sketch(held, n_prime, rng), 3), [0, 0, half, half], 0)
    return alarms


@dataclass(frozen=True)
class Lookups:
    """Results of lookups of chunks in sketches of one load.

    Attributes:
        load: chunks per register.
        held: lookups of chunks that were counted.
        denied: lookups of counted chunks that the sketch denied: false negatives.
        absent: lookups of chunks that were never counted.
        believed: lookups of absent chunks that the sketch answered with "perhaps": false positives.
        predicted: predicted share of ``believed`` in ``absent``.
    """

    load: float
    held: int
    denied: int
    absent: int
    believed: int
    predicted: float


def lookups(n_prime: int, tau: int, loads: Sequence[float], seed: int) -> list[Lookups]:
    """Count chunks, and look up all of them and N' absent chunks.

    Then un-count half of the chunks, and look up the other half.
    """
    rng = np.random.default_rng(seed)
    found = []
    for load in loads:
        chunks = round(load * n_prime)
        present, absent = chunk_names(chunks, rng), chunk_names(n_prime, rng)
        one = LCRS(n_prime, tau, int(rng.integers(2**32)))
        one.add(present)
        denied = int(np.count_nonzero(~one.contains(present)))
        believed = int(np.count_nonzero(one.contains(absent)))
        one.remove(present[: chunks // 2])
        denied += int(np.count_nonzero(~one.contains(present[chunks // 2 :])))
        predicted = float(false_positive_rate(chunks, n_prime))
        found.append(Lookups(load, 2 * chunks - chunks // 2, denied, n_prime, believed, predicted))
    return found


def chunk_names(number: int, rng: np.random.Generator) -> list[str]:
    """Return random SHA-256 digests in hexadecimal digits."""
    digits = rng.bytes(32 * number).hex()
    return [digits[at : at + 64] for at in range(0, len(digits), 64)]
