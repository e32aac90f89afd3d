"""How many distinct chunks a set of sketches holds."""

import math

from sketches.estimators.estimate import Z_95, Estimate

NORMAL_SD = 5.0
"""Standard deviation in chunks from which the normal interval covers; below, the discrete one does."""


def union_estimate(zero_registers: int, n_prime: int) -> Estimate:
    """Estimate how many distinct chunks a set of sketches holds from the registers empty on all of them.

    Linear counting (Whang, Vander-Zanden and Taylor, 1990) with ``t = -ln(Z0/N')``; the bias taken off is
    ``(e^t - 1)/2`` for a fixed set of chunks, and the standard deviation is ``sqrt(N' (e^t - 1 - t))``. Under
    a standard deviation of 5 the interval is widened by half a register's worth and cut to whole chunks, no
    fewer than the occupied registers.

    Args:
        zero_registers: Z0, the registers that are zero in every sketch.
        n_prime: N', the size of the sketches in registers.

    Raises:
        ValueError: not ``0 <= zero_registers <= n_prime`` with at least one register.
    """
    if n_prime < 1 or not 0 <= zero_registers <= n_prime:
        raise ValueError(f"{zero_registers} of {n_prime} registers cannot be empty")
    if zero_registers == 0:
        bound = max(float(n_prime), n_prime * math.log(n_prime / 3))
        return Estimate(bound, bound, None, saturated=True)
    occupied = n_prime - zero_registers
    t = -math.log(zero_registers / n_prime)
    estimate = n_prime * t - math.expm1(t) / 2
    sd = math.sqrt(n_prime * max(math.expm1(t) - t, 0.0))
    if sd >= NORMAL_SD:
        return Estimate(estimate, estimate - Z_95 * sd, estimate + Z_95 * sd, saturated=False)
    half = Z_95 * sd + math.exp(t) / 2
    lower, upper = math.ceil(max(occupied, estimate - half)), math.floor(estimate + half)
    return Estimate(estimate, float(lower), float(upper), saturated=False)
