"""How surely missing replicas are seen, how often nothing is mistaken for something, and what lookups answer."""

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
"""Of each placement."""


def proofs(n_prime: int, chunks: int, missing: int, runs: int, seed: int) -> int:
    """Count the runs in which a register proves that chunks of three replicas lack one; ``missing`` do."""
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
    """Count the alarms when half of the chunks should have two and half three replicas; ``missing`` lack a third."""
    rng, alarms, half = np.random.default_rng(seed), 0, chunks // 2
    replicas = np.repeat([2, 3], [half + missing, half - missing])
    for run in range(runs):
        if run % HASHINGS == 0:
            held = weighted(NODES).hold(replicas, rng)
        alarms += alarming(spectrum_from_registers(sketch(held, n_prime, rng), 3), [0, 0, half, half], 0)
    return alarms


@dataclass(frozen=True)
class Lookups:
    """Chunks looked for in sketches of one load."""

    load: float
    held: int
    denied: int
    absent: int
    believed: int
    predicted: float


def lookups(n_prime: int, tau: int, loads: Sequence[float], seed: int) -> list[Lookups]:
    """Count chunks, look for all of them, un-count half, look for the rest; then for as many absent as registers."""
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
    """Random SHA-256 digests in hex."""
    digits = rng.bytes(32 * number).hex()
    return [digits[at : at + 64] for at in range(0, len(digits), 64)]
