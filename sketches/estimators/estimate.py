"""What every estimator answers: a number and how far it may be off."""

import math
from dataclasses import dataclass

Z_95 = 1.96
"""Standard normal quantile of a two-sided 95 % interval."""

ROUNDING = 1e-6
"""Chunks by which floating point may miss a whole number that an end is rounded up to."""


@dataclass(frozen=True)
class Estimate:
    """An estimated number with its 95 % interval.

    Attributes:
        estimate: the point estimate; the lower bound when saturated.
        lower_bound: lower end of the interval (one-sided when saturated).
        upper_bound: upper end; None if the registers cannot tell one.
        saturated: too few registers are empty, or too few levels are counted, for an estimate: only "at least
            ``lower_bound``" can be said.
    """

    estimate: float
    lower_bound: float
    upper_bound: float | None
    saturated: bool


def at_least(bound: float) -> Estimate:
    """Answer that only a lower bound is known."""
    return Estimate(bound, bound, None, saturated=True)


def whole_chunks(estimate: float, lower: float, upper: float, proven: int) -> Estimate:
    """Answer a number of chunks, which is whole, and not below what is proven.

    The ends are rounded to the nearest number; the upper one up, where there may be none at all. Simulated with a
    standard deviation under 3 chunks, unrounded ends cover as little as 87 % and ends rounded outward 98 to 100 %.

    Args:
        estimate: the point estimate, in chunks; moved between the rounded ends.
        lower: lower end of its interval.
        upper: upper end of its interval.
        proven: chunks that are there for certain.
    """
    least = max(round(lower), proven)
    most = max(round(upper) if least else math.ceil(upper - ROUNDING), least)
    return Estimate(min(max(estimate, float(least)), float(most)), float(least), float(most), saturated=False)
