"""Checks of the shape and the values of registers, on which every estimator relies."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_TAU = 255
"""The largest tau: a register is one byte."""

MANY_NODES = 1000
"""A matrix with more rows than this, and with more rows than columns, is taken as transposed."""


def checked_registers(registers: ArrayLike, tau: int = MAX_TAU) -> NDArray[np.uint8]:
    """Raise an error unless ``registers`` can be the sketches of m nodes.

    Args:
        registers: integers ``[m, N']``: a row for each node. Up to `MANY_NODES` nodes, m may be larger than N'.
        tau: the level at which a register saturates.

    Returns:
        uint8 ``[m, N']``: the array ``registers`` itself, if it is uint8.

    Raises:
        ValueError: there are no registers, the array is not two-dimensional or seems transposed, or a register is not
            an integer from 0 to ``tau``.
    """
    matrix = np.asarray(registers)
    if matrix.ndim != 2:
        raise ValueError(f"registers have a row for each node, and not the shape {matrix.shape}")
    nodes, n_prime = matrix.shape
    if n_prime == 0:
        raise ValueError("there are no registers")
    if nodes > max(n_prime, MANY_NODES):
        raise ValueError(f"{nodes} nodes of {n_prime} registers seem to be transposed")
    return checked_values(matrix, tau)


def checked_values(values: ArrayLike, tau: int = MAX_TAU) -> NDArray[np.uint8]:
    """Raise an error unless ``values``, of any shape, can be the values of registers.

    Raises:
        ValueError: a value is not an integer from 0 to ``tau``.
    """
    found = np.asarray(values)
    if found.dtype.kind not in "biu":
        raise ValueError(f"registers are integers, and not {found.dtype}")
    limited = found.dtype != np.uint8 or tau < MAX_TAU
    if limited and found.size and not 0 <= int(found.min()) <= int(found.max()) <= tau:
        raise ValueError(f"registers from {found.min()} to {found.max()} are not within 0 and {tau}")
    return found.astype(np.uint8, copy=False)
