"""Tells whether a sketch still agrees with its node: by the sketch alone, or by a listing of the node."""

import math
from dataclasses import dataclass

import numpy as np

from sketches.estimators.discrete import count_score
from sketches.estimators.estimate import Estimate
from sketches.estimators.union import union_estimate
from sketches.exceptions import IncompatibleSketches
from sketches.lcrs import LCRS

STUCK_SHARE = 1e-3
"""A sketch with a larger share of saturated registers is rebuilt: these do not come down when chunks are removed."""


@dataclass(frozen=True)
class Disagreement:
    """Two counts of the chunks on a node. The two counts agree as long as every chunk is counted once and un-counted
    once.

    Attributes:
        counted: the sum of the registers; a lower bound on the counted chunks if registers are saturated.
        estimated: distinct chunks, from the registers that are not zero.
        score: standard score of ``counted`` against the registers that are not zero, always finite. A score above 3
            means that chunks are counted twice, a score below -3 that counts are lost. Less than 1 % of sound sketches
            score beyond 3 or -3.
        saturated: registers at tau; if there are any, the score is not below 0.
    """

    counted: int
    estimated: Estimate
    score: float
    saturated: int


@dataclass(frozen=True)
class Comparison:
    """The differences between the registers of a sketch in use and of a sketch built from a listing.

    Attributes:
        registers: N', the number of registers of each of the two sketches.
        differing: registers that differ.
        over_counts: registers above those of the listing, which are harmless: they only cause useless reads.
        under_counts: registers below those of the listing. Each under-count is a false negative or can become one.
        false_negatives: registers at zero although the listing has chunks in them: the sketch denies these chunks now.
        saturated: registers at tau in the sketch in use.
    """

    registers: int
    differing: int
    over_counts: int
    under_counts: int
    false_negatives: int
    saturated: int

    @property
    def saturated_share(self) -> float:
        """Share of the registers that are stuck at tau, in [0, 1]."""
        return self.saturated / self.registers

    @property
    def needs_rebuild(self) -> bool:
        """True if the sketch in use under-counts, which must never happen, or is too saturated."""
        return self.under_counts > 0 or needs_rebuild(self.saturated, self.registers)


def needs_rebuild(saturated: int, n_prime: int) -> bool:
    """Tell whether more than one in a thousand of the registers is stuck at tau."""
    return saturated > STUCK_SHARE * n_prime


def disagreement(sketch: LCRS) -> Disagreement:
    """Compare the sum of the registers with the number of registers that are not zero.

    The score compares the number of empty registers with the number expected if as many chunks were hashed as the
    registers count. The score is valid at any load. If a chunk was removed but not un-counted, the sum includes the
    chunk, and the chunk's register is not empty: the two numbers agree, and only a comparison with a listing shows the
    error.

    The test has little power. If a share s of the chunks is counted twice, the score is ``s sqrt(2 N')`` on average at
    low loads, and a sixth less at a load of 1. If 2 % of the chunks are counted twice at N' = 10^4, the score is 2.4 to
    2.8 on average, so less than half of the sketches with this error score more than 3. A sketch that passes the test
    may still be wrong; only `compare` finds every error.

    Args:
        sketch: the sketch of one node.
    """
    size, counted = sketch.n_prime, int(sketch.registers.sum(dtype=np.int64))
    empty, saturated = int(np.count_nonzero(sketch.registers == 0)), sketch.saturated
    mean, variance = _empty_registers(counted, size)
    score = float(count_score(empty - mean, variance, 1.0))
    # A saturated register stands for at least its value, so a sum that is too small proves nothing.
    return Disagreement(counted, union_estimate(empty, size), max(score, 0.0) if saturated else score, saturated)


def compare(in_use: LCRS, listed: LCRS) -> Comparison:
    """Compare, register by register, a sketch in use with a sketch built from a listing of the node's chunks.

    If chunks are written or removed between the listing and the reading of the sketch, registers differ without an
    error.

    Raises:
        IncompatibleSketches: the sketches differ in size, tau or seed.
    """
    if (in_use.n_prime, in_use.tau, in_use.seed) != (listed.n_prime, listed.tau, listed.seed):
        raise IncompatibleSketches("only sketches of the same size, tau and seed can be compared")
    above = int(np.count_nonzero(in_use.registers > listed.registers))
    below = int(np.count_nonzero(in_use.registers < listed.registers))
    denied = int(np.count_nonzero((in_use.registers == 0) & (listed.registers > 0)))
    return Comparison(in_use.n_prime, above + below, above, below, denied, in_use.saturated)


def _empty_registers(chunks: int, n_prime: int) -> tuple[float, float]:
    """Mean and variance of the number of registers, out of N', that n chunks leave empty.

    Mean and variance are ``N' q`` and ``N' q (1 - q) + N' (N' - 1) (q2 - q^2)`` with ``q = (1 - 1/N')^n`` and
    ``q2 = (1 - 2/N')^n``. The formulas are those of the classical occupancy problem (Johnson and Kotz, Urn Models,
    1977), where ``q2 / q^2 = (1 - 1/(N' - 1)^2)^n``.
    """
    if chunks == 0 or n_prime == 1:
        return (float(n_prime) if chunks == 0 else 0.0), 0.0
    log_q = chunks * math.log1p(-1 / n_prime)
    log_ratio = chunks * math.log1p(-1 / (n_prime - 1) ** 2) if n_prime > 2 else -math.inf
    q = math.exp(log_q)
    variance = n_prime * q * -math.expm1(log_q) + n_prime * (n_prime - 1) * q**2 * math.expm1(log_ratio)
    return n_prime * q, max(variance, 0.0)
