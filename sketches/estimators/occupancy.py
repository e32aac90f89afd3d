"""Counts registers by the set of nodes on which they are not zero, in one pass: the spectrum needs these counts."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sketches.registers import checked_registers

MAX_TERMS = 2**22
"""The most pairs of a set of nodes and one of its subsets that `containment` may go through, in some 50 ms."""


@dataclass(frozen=True, eq=False)
class Occupancy:
    """Numbers of registers by the exact set of nodes on which they are not zero.

    Attributes:
        n_prime: N', registers of each sketch.
        nodes: m, the number of sketches.
        level_counts: int64 ``[m + 1]``, registers that are not zero on exactly l nodes.
        patterns: for k = 0 … depth, int64 ``[C(m, k)]``: registers that are not zero on exactly the nodes of a
            k-subset, in the order of `subsets`. ``patterns[0]`` is Z0, ``patterns[1]`` has the registers that are not
            zero on one node only.
    """

    n_prime: int
    nodes: int
    level_counts: NDArray[np.int64]
    patterns: tuple[NDArray[np.int64], ...]


def count_occupancy(registers: NDArray[np.uint8], depth: int) -> Occupancy:
    """Count registers by the exact set of nodes on which they are not zero, for sets of up to ``depth`` nodes.

    Only the few registers at levels 1 … ``depth`` are examined one by one. The place of a set among the sets of its
    size is summed up node by node, in the combinatorial number system.

    Args:
        registers: uint8 ``[m, N']``, the sketches of m nodes, one seed and one size; m may be 0.
        depth: largest set size, cut to m.

    Raises:
        ValueError: as by `checked_registers`, or ``depth`` is negative.
    """
    registers = checked_registers(registers)
    if depth < 0:
        raise ValueError(f"there are no sets of up to {depth} nodes")
    nodes, n_prime = registers.shape
    depth = min(depth, nodes)
    levels = np.zeros(n_prime, np.min_scalar_type(nodes))
    for row in registers:
        levels += (row != 0).view(np.uint8)
    low = (levels > 0) & (levels <= depth)
    seen = np.zeros(n_prime, np.uint8)
    place = np.zeros(n_prime, np.int64)
    choose = binomials(nodes, depth)
    for node, row in enumerate(registers if depth else []):
        hits = np.flatnonzero((row != 0) & low)  # flatnonzero is five times as fast on booleans as on bytes
        seen[hits] += 1
        place[hits] += choose[node, seen[hits]]
    patterns = [np.bincount(place[levels == k], minlength=math.comb(nodes, k)) for k in range(1, depth + 1)]
    level_counts = np.bincount(levels, minlength=nodes + 1)
    return Occupancy(n_prime, nodes, level_counts, (level_counts[:1], *patterns))


@lru_cache(maxsize=64)
def binomials(largest: int, depth: int) -> NDArray[np.int64]:
    """``C(n, k)`` for n = 0 … ``largest``, k = 0 … ``depth``."""
    return np.array([[math.comb(n, k) for k in range(depth + 1)] for n in range(largest + 1)], np.int64)


@lru_cache(maxsize=64)
def subsets(nodes: int, size: int) -> NDArray[np.int64]:
    """All sets of ``size`` out of ``nodes`` nodes, ascending within a set, int64 ``[C(nodes, size), size]``.

    The order is colexicographic: set ``{i_1 < i_2 < …}`` is at place ``C(i_1, 1) + C(i_2, 2) + …``, and the sets of
    the first nodes alone come first.
    """
    if size == 0:
        return np.zeros((1, 0), np.int64)
    smaller = subsets(nodes, size - 1)
    heads = [smaller[: math.comb(last, size - 1)] for last in range(nodes)]
    lasts = np.repeat(np.arange(nodes), [len(head) for head in heads])
    return np.column_stack([np.concatenate([smaller[:0], *heads]), lasts])


def containment(nodes: int, size: int) -> tuple[NDArray[np.int64], ...]:
    """Return the places of all subsets of each set of ``size`` nodes.

    Returns:
        For k = 0 … ``size``, int64 ``[C(nodes, size), C(size, k)]``: row B has the places of the k-subsets of B.
    """
    sets, choose = subsets(nodes, size), binomials(nodes, size)
    parts = [subsets(size, k) for k in range(size + 1)]
    return tuple(choose[sets[:, part], np.arange(1, part.shape[1] + 1)].sum(axis=2) for part in parts)


def tractable_depth(nodes: int, depth: int) -> int:
    """The largest set size up to ``depth`` whose `containment` stays within `MAX_TERMS`."""
    terms = [math.comb(nodes, size) * 2**size for size in range(depth + 1)]
    return next((size - 1 for size, count in enumerate(terms) if count > MAX_TERMS), depth)
