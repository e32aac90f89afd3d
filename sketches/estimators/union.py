"""The union: the number of distinct chunks that a set of sketches holds."""

import math

from sketches.estimators.estimate import Z_95, Estimate, at_least

NORMAL_SD = 5.0
"""From this standard deviation on, in chunks, the normal interval is used; below it, the discrete interval."""


def union_estimate(zero_registers: int, n_prime: int) -> Estimate:
    """Estimate how many distinct chunks a set of sketches holds from the registers empty on all of them.

    Linear counting (Whang, Vander-Zanden and Taylor, 1990) estimates ``N' t`` chunks, with the load ``t = -ln(Z0/N')``.
    For a fixed set of n chunks, ``E Z0 = N' (1 - 1/N')^n`` and the curvature of the logarithm cause a bias of
    ``(e^t - 1)/2``, which is subtracted. The standard deviation is ``sqrt(N' (e^t - 1 - t))``. Under a standard
    deviation of 5 chunks the interval is widened by half the chunks that one more empty register stands for, and cut to
    whole chunks.

    The estimate is valid down to a handful of empty registers. In simulations at N' = 10^3 to 10^5 and t = .001 to 6,
    the bias stays under .1 standard deviation (from 20 chunks on) and the coverage between 93 and 99.5 %. Without an
    empty register the answer is saturated: n chunks leave no register empty with probability ``exp(-N' e^(-n/N'))``,
    which reaches 5 % at ``n = N' ln(N'/3)``, the one-sided lower bound.

    Args:
        zero_registers: Z0, the registers that are zero in every sketch.
        n_prime: N', the size of the sketches in registers.

    Raises:
        ValueError: not ``0 <= zero_registers <= n_prime`` with at least one register.
    """
    if n_prime < 1 or not 0 <= zero_registers <= n_prime:
        raise ValueError(f"{zero_registers} of {n_prime} registers cannot be empty")
    if zero_registers == 0:
        return at_least(max(float(n_prime), n_prime * math.log(n_prime / 3)))
    occupied = n_prime - zero_registers
    t = -math.log(zero_registers / n_prime)
    # There is at least one chunk per occupied register. Rounding, or a very small N', would give a lower estimate.
    estimate = max(n_prime * t - math.expm1(t) / 2, float(occupied))
    sd = math.sqrt(n_prime * max(math.expm1(t) - t, 0.0))
    if sd >= NORMAL_SD:
        return Estimate(estimate, max(estimate - Z_95 * sd, float(occupied)), estimate + Z_95 * sd, saturated=False)
    half = Z_95 * sd + math.exp(t) / 2
    lower, upper = math.ceil(max(occupied, estimate - half)), math.floor(estimate + half)
    # The interval must include the estimate, which need not be a whole number. An end that moves out to the estimate
    # passes no whole number, so no further number of chunks becomes possible.
    return Estimate(estimate, min(float(lower), estimate), max(float(upper), estimate), saturated=False)
