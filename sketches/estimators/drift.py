"""Whether a sketch still says what its node holds: from the sketch alone, and against one built from a listing."""

import math
from dataclasses import dataclass

import numpy as np

from sketches.estimators.discrete import count_score
from sketches.estimators.estimate import Estimate
from sketches.estimators.union import union_estimate
from sketches.exceptions import IncompatibleSketches
from sketches.lcrs import LCRS

STUCK_SHARE = 1e-3
"""Share of saturated registers past which a sketch is to be rebuilt: they no longer come down when chunks go."""


@dataclass(frozen=True)
class Disagreement:
    """Two accounts of the chunks on a node that agree while every chunk is counted once and un-counted once.

    Attributes:
        counted: the sum of the registers; at least so many when saturated.
        estimated: distinct chunks, from the registers that are not zero.
        score: standard score of ``counted`` against the registers that are not zero, always finite. Above 3, chunks are
            counted twice, below -3, counts are lost; among sound sketches less than 1 % are beyond.
        saturated: registers at tau; if there are any, the score is not below 0.
    """

    counted: int
    estimated: Estimate
    score: float
    saturated: int


@dataclass(frozen=True)
class Comparison:
    """How the registers of a sketch in use differ from those of one built from a listing.

    Attributes:
        registers: N', of both.
        differing: registers that differ.
        over_counts: registers above the listing's: harmless, they only cost reads in vain.
        under_counts: registers below the listing's: each is, or is to become, a false negative.
        false_negatives: registers at zero whose chunks the listing has: they are denied now.
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
        """Whether the sketch in use under-counts, which must never be, or is too saturated."""
        return self.under_counts > 0 or needs_rebuild(self.saturated, self.registers)


def needs_rebuild(saturated: int, n_prime: int) -> bool:
    """Tell whether more than one in a thousand of the registers is stuck at tau."""
    return saturated > STUCK_SHARE * n_prime


def disagreement(sketch: LCRS) -> Disagreement:
    """Compare the sum of the registers with the number of them that are not zero.

    The score is that of the empty registers, given that as many chunks fell into them as the registers count: valid for
    any load. A chunk that was removed but not un-counted still looks like one that is there, to both accounts: it shows
    in a comparison with a listing, not here.

    The test has little power. A share s of the chunks that is counted twice scores ``s sqrt(2 N')`` on average at low
    loads, and a sixth less at a load of 1: 2 % of them at N' = 10^4 score 2.4 to 2.8, so that less than half of such
    sketches are beyond 3. A sketch that passes is not proved sound; only `compare` tells.

    Args:
        sketch: of one node.
    """
    size, counted = sketch.n_prime, int(sketch.registers.sum(dtype=np.int64))
    empty, saturated = int(np.count_nonzero(sketch.registers == 0)), sketch.saturated
    mean, variance = _empty_registers(counted, size)
    score = float(count_score(empty - mean, variance, 1.0))
    # What a saturated register counts is a lower bound: that the sum falls short then proves nothing.
    return Disagreement(counted, union_estimate(empty, size), max(score, 0.0) if saturated else score, saturated)


def compare(in_use: LCRS, listed: LCRS) -> Comparison:
    """Compare, register by register, a sketch in use with one built from a listing of the node's chunks.

    Chunks that come or go between the listing and the reading of the sketch differ without being wrong.

    Raises:
        IncompatibleSketches: they differ in size, tau or seed.
    """
    if (in_use.n_prime, in_use.tau, in_use.seed) != (listed.n_prime, listed.tau, listed.seed):
        raise IncompatibleSketches("only sketches of the same size, tau and seed can be compared")
    above = int(np.count_nonzero(in_use.registers > listed.registers))
    below = int(np.count_nonzero(in_use.registers < listed.registers))
    denied = int(np.count_nonzero((in_use.registers == 0) & (listed.registers > 0)))
    return Comparison(in_use.n_prime, above + below, above, below, denied, in_use.saturated)


def _empty_registers(chunks: int, n_prime: int) -> tuple[float, float]:
    """Mean and variance of how many of N' registers n chunks leave empty.

    ``N' q`` and ``N' q (1 - q) + N' (N' - 1) (q2 - q^2)`` with ``q = (1 - 1/N')^n`` and ``q2 = (1 - 2/N')^n``, the
    classical occupancy problem (Johnson and Kotz, Urn Models, 1977), where ``q2 / q^2 = (1 - 1/(N' - 1)^2)^n``.
    """
    if chunks == 0 or n_prime == 1:
        return (float(n_prime) if chunks == 0 else 0.0), 0.0
    log_q = chunks * math.log1p(-1 / n_prime)
    log_ratio = chunks * math.log1p(-1 / (n_prime - 1) ** 2) if n_prime > 2 else -math.inf
    q = math.exp(log_q)
    variance = n_prime * q * -math.expm1(log_q) + n_prime * (n_prime - 1) * q**2 * math.expm1(log_ratio)
    return n_prime * q, max(variance, 0.0)
