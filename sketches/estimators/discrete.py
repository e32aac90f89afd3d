"""Intervals and scores of numbers of chunks. For few chunks it matters that their number is whole."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketches.estimators.estimate import Z_95

NORMAL_SD = 5.0
"""From this standard deviation on, in chunks, the normal approximation is good; below it, single collisions matter."""

LONE_COLLISION_VARIANCE = 1 / 36
"""A score's variance is raised by this, so that a single chance collision, less the half step, scores at most 3."""


def count_interval(estimate: float, sd: float, step: float, least: float, most: float) -> tuple[float, float]:
    """The 95 % interval of a number of chunks.

    From a standard deviation of 5 on, the interval is normal. With a standard deviation below 5, the interval is
    widened by half a step and cut to whole chunks.

    Args:
        estimate: unbiased estimate, in chunks.
        sd: its standard deviation, in chunks.
        step: by how much one more or one fewer empty register changes the estimate: ``N' / Z0``.
        least: the true number is certainly not below this bound.
        most: the true number is not above this bound, ``least <= most``.

    Returns:
        Lower and upper bound, ``least <= lower <= upper <= most``.
    """
    if sd >= NORMAL_SD:
        lower, upper = estimate - Z_95 * sd, estimate + Z_95 * sd
    else:
        half = Z_95 * sd + step / 2
        lower, upper = float(math.ceil(estimate - half)), float(math.floor(estimate + half))
    return min(max(lower, least), most), min(max(upper, least), most)


def count_score(difference: ArrayLike, variance: ArrayLike, step: ArrayLike) -> NDArray[np.float64]:
    """Standard scores of differences in chunks; Yates's half step is used where the standard deviation is below 5.

    Args:
        difference: observed less expected, any shape.
        variance: variance of the difference, at least 0; same shape.
        step: as for `count_interval`; same shape.

    Returns:
        float64 of that shape, finite; 0 where the difference is within half a step of a small variance.
    """
    gap, spread = np.asarray(difference, np.float64), np.asarray(variance, np.float64)
    half = np.where(spread < NORMAL_SD**2, np.asarray(step, np.float64) / 2, 0.0)
    score = np.maximum(np.abs(gap) - half, 0.0) / np.sqrt(spread + LONE_COLLISION_VARIANCE)
    return np.asarray(np.copysign(score, gap))


def score_bound(scores: int, level: float = 0.01) -> float:
    """The bound that the largest of many standard scores exceeds by chance with probability ``level`` at most.

    Among 20 healthy nodes, one of the 190 pairs is beyond 3 in a third of all surveys. The bound is that of Sidak
    (Journal of the American Statistical Association 62, 1967): it is exact for independent normal scores, and on the
    safe side for dependent scores.

    Args:
        scores: the number of scores, such as ``m (m - 1) / 2`` pairs of nodes or the sets of three nodes; at least 0.
        level: probability of a false alarm in one survey, above 0 and below 1.

    Returns:
        The bound on the absolute value: 2.576 for one score at a level of .01, 4.04 for 190.

    Raises:
        ValueError: ``scores`` is negative, or ``level`` is not a probability between 0 and 1.
    """
    if scores < 0 or not 0 < level < 1:
        raise ValueError(f"{scores} scores at a level of {level} have no bound")
    each = -math.expm1(math.log1p(-level) / max(scores, 1))
    return -NormalDist().inv_cdf(each / 2)
