"""What registers may look like: the shape and the values that every estimator relies on."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_TAU = 255
"""A register is one byte."""

MANY_NODES = 1000
"""More rows than this, and more than columns, are registers by node and not nodes by register."""


def checked_registers(registers: ArrayLike, tau: int = MAX_TAU) -> NDArray[np.uint8]:
    """Refuse what cannot be the sketches of m nodes.

    Args:
        registers: integers ``[m, N']``: a row for each node. Few nodes may have fewer registers than there are nodes.
        tau: the level at which they saturate.

    Returns:
        uint8 ``[m, N']``: the same array, if it is of that type.

    Raises:
        ValueError: there are no registers, their shape is another one or transposed, or a register is not an integer
            from 0 to ``tau``.
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
    """Refuse what cannot be the values of registers, of whatever shape.

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
