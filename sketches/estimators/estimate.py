"""The answer of every estimator: a number and an interval around it."""

import math
from dataclasses import dataclass

Z_95 = 1.96
"""Standard normal quantile of a two-sided 95 % interval."""

ROUNDING = 1e-6
"""Rounding error of floating point, in chunks: an upper end that exceeds a whole number by less is not rounded up."""


@dataclass(frozen=True)
class Estimate:
    """An estimated number with its 95 % interval.

    Attributes:
        estimate: the point estimate; the lower bound when saturated.
        lower_bound: lower end of the interval (one-sided when saturated).
        upper_bound: upper end; None if the registers do not tell an upper end.
        saturated: True if too few registers are empty, or too few levels are counted, for an estimate: only "at least
            ``lower_bound``" is known.
    """

    estimate: float
    lower_bound: float
    upper_bound: float | None
    saturated: bool


def at_least(bound: float) -> Estimate:
    """Return an answer that is only a lower bound."""
    return Estimate(bound, bound, None, saturated=True)


def whole_chunks(estimate: float, lower: float, upper: float, proven: int) -> Estimate:
    """Return a number of chunks with an interval of whole numbers, none of them below ``proven``.

    The ends are rounded to the nearest whole number. If the rounded lower end is 0, the upper end is rounded up. In
    simulations with a standard deviation under 3 chunks, unrounded ends cover as little as 87 % and ends rounded
    outward 98 to 100 %.

    Args:
        estimate: the point estimate, in chunks. If the estimate is outside the rounded interval, the nearer end of the
            interval replaces the estimate.
        lower: lower end of its interval.
        upper: upper end of its interval.
        proven: chunks that are there for certain.
    """
    least = max(round(lower), proven)
    most = max(round(upper) if least else math.ceil(upper - ROUNDING), least)
    return Estimate(min(max(estimate, float(least)), float(most)), float(least), float(most), saturated=False)
