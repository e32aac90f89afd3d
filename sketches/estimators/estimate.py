"""What every estimator answers: a number and how far it may be off."""

from dataclasses import dataclass

Z_95 = 1.96
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class Estimate:
    """An estimated number with its 95 % interval.

    Attributes:
        estimate: the point estimate; the lower bound when saturated.
        lower_bound: lower end of the interval (one-sided when saturated).
        upper_bound: upper end; None when saturated, as then there is none.
        saturated: no register is empty, so that only "at least ``lower_bound``" can be said.
    """

    estimate: float
    lower_bound: float
    upper_bound: float | None
    saturated: bool
