"""The spectrum, from the sets of nodes on which registers are zero: linear counting of chunks confined to few nodes.

Let ``F(B)`` be the number of registers that are zero on every node outside the set B. With probability ``F(B)/N'``, all
chunks with a replica outside B miss a given register; with probability ``Z0/N'``, all chunks miss it. Therefore
``N' ln(F(B)/Z0)`` estimates the chunks *confined* to B: all their replicas lie on nodes of B (linear counting of Whang,
Vander-Zanden and Taylor, 1990, applied to the registers of B's complement; the other formulas are derived here). Let
``A[k]`` be the mean of this estimate over all sets of k of the m nodes. A chunk of j replicas is confined to
``C(m-j, k-j)`` of these sets, so ``C(m, k) A[k] = sum_j C(m-j, k-j) c_j``, where ``c_j`` chunks have j replicas. The
solution is

    ``c_l = C(m, l) sum_{k=1..l} (-1)^(l-k) C(l, k) A[k]``.

The covariance is that of a multinomial over registers (delta method) less ``diag(c)``. The multinomial is the
covariance for numbers of chunks that are Poisson. Such numbers vary, and each adds its mean to the variance. The real
numbers of chunks are fixed, so the means, ``diag(c)``, are taken off.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketches.estimators.occupancy import Occupancy, containment, count_occupancy, tractable_depth
from sketches.estimators.spectrum import (
    Floats,
    Spectrum,
    proven_by_levels,
    resolvable,
    saturated_spectrum,
    too_full,
)
from sketches.estimators.union import union_estimate
from sketches.registers import checked_registers


def spectrum_from_registers(registers: NDArray[np.uint8], replication_factor: int) -> Spectrum:
    """Estimate the spectrum from the sketches of m nodes, wherever the replicas were placed.

    It only matters whether a register is zero: saturated registers and over-counts of present chunks change nothing.
    The work grows with ``C(m, RF - 1)``. Where the sets of ``RF - 1`` nodes have more than some 4 million subsets
    together (50 nodes allow RF = 5), the spectrum tells fewer replica numbers apart.

    Args:
        registers: uint8 ``[m, N']``, sketches of the *online* nodes, of one seed and one size; m may be 0.
        replication_factor: RF, at least 1.

    Returns:
        The spectrum; unbiased within .1 standard deviation where at least 20 registers are empty, saturated otherwise.

    Raises:
        ValueError: as by `checked_registers`, or RF is less than 1.
    """
    registers = checked_registers(registers)
    nodes = len(registers)
    depth = tractable_depth(nodes, resolvable(replication_factor, nodes) - 1)
    return spectrum_from_occupancy(count_occupancy(registers, depth), replication_factor)


def spectrum_from_occupancy(occupancy: Occupancy, replication_factor: int) -> Spectrum:
    """Estimate the spectrum as `spectrum_from_registers` does, from registers that are already counted.

    Args:
        occupancy: registers of m nodes, counted for sets of up to ``R - 1`` nodes. R is the number of classes of the
            spectrum, at most RF.
        replication_factor: RF, at least 1.
    """
    levels, nodes = occupancy.level_counts, occupancy.nodes
    if too_full(levels):
        return saturated_spectrum(levels, nodes, replication_factor, len(occupancy.patterns))
    return _solve(_confined_by_patterns(occupancy), levels, nodes, replication_factor)


def spectrum_from_levels(level_counts: ArrayLike, nodes: int, replication_factor: int) -> Spectrum:
    """Estimate the spectrum from level counts alone, for exchangeable placements.

    Here ``F[k] = sum_j Z[j] C(k, j)/C(m, j)``, the mean of ``F(B)`` over the sets of k nodes, replaces each ``F(B)``.
    ``F[k]`` may replace ``F(B)`` if every set of l nodes is equally likely to hold a chunk's l replicas. Weights and
    zones bias the spectrum: little where most chunks have all replicas, but by six standard deviations with N' = 10^4,
    t = 1, weights of 8, 8, 1, 1, 1 and 1 to 3 replicas. Only ``Z[0] … Z[RF - 1]`` are used, so a cap at RF or more
    changes nothing.

    Args:
        level_counts: Z, integers ``[L + 1]`` with L <= m: registers that are not zero on exactly l nodes, which sum to
            N'. If L < m, the last entry counts the registers that are not zero on L or more nodes.
        nodes: m.
        replication_factor: RF, at least 1.

    Returns:
        The spectrum; unbiased within .1 standard deviation where at least 20 registers are empty, saturated otherwise.

    Raises:
        ValueError: ``level_counts`` has more than m + 1 entries, has no entry for registers that are not zero, has a
            negative entry or counts no register at all, or RF is less than 1.
    """
    levels = np.asarray(level_counts, np.int64)
    if levels.ndim != 1 or not min(nodes, 1) < len(levels) <= nodes + 1 or levels.min() < 0 or levels.sum() < 1:
        raise ValueError(f"{levels.tolist()} are no level counts of {nodes} nodes")
    resolution = resolvable(replication_factor, len(levels) - 1)
    if too_full(levels):
        return saturated_spectrum(levels, nodes, replication_factor, resolution)
    return _solve(_confined_by_levels(levels, nodes, resolution), levels, nodes, replication_factor)


@dataclass(frozen=True, eq=False)
class _Confined:
    """Mean numbers of chunks confined to k nodes, for k = 0 … R - 1, and their derivatives by the registers in cells.

    A cell has the registers that are not zero on exactly one set of nodes or, if only levels are known, at one level.

    Attributes:
        mean: float64 ``[R]``, mean over the sets of k nodes, with the bias subtracted; 0 at k = 0.
        gradient: float64 ``[R, cells]``, the derivative of ``mean`` by the number of registers in each cell.
        cells: float64 ``[cells]``, registers in each cell; the first is Z0.
        free: float64 ``[R]``, mean of ``F(B)`` over the sets of k nodes.
    """

    mean: Floats
    gradient: Floats
    cells: Floats
    free: Floats


def _confined_by_patterns(occupancy: Occupancy) -> _Confined:
    """Estimate the confined chunks from the mean, over the sets B of k nodes, of the logarithm of ``F(B)/Z0``.

    The logarithm of the ratio is taken, and not a difference of two means: the result is exactly zero if the registers
    show no trace of a chunk.
    """
    cells = [pattern.astype(np.float64) for pattern in occupancy.patterns]
    n_prime, zero, resolution = occupancy.n_prime, float(cells[0][0]), len(cells)
    mean, free = np.zeros(resolution), np.full(resolution, zero)
    gradient = np.zeros((resolution, sum(map(len, cells))))
    for k in range(1, resolution):
        within = containment(occupancy.nodes, k)
        more = np.sum([cells[j][within[j]].sum(axis=1) for j in range(1, k + 1)], axis=0)
        change = -more / (zero * (zero + more))  # 1/F(B) - 1/Z0
        mean[k] = n_prime * np.mean(np.log1p(more / zero) + change / 2)
        free[k] += more.mean()
        slopes = [np.array([change.sum()])]
        for j in range(1, k + 1):
            shares = np.broadcast_to((1 / (zero + more))[:, None], within[j].shape)
            slopes.append(np.bincount(within[j].ravel(), shares.ravel(), len(cells[j])))
        row = np.concatenate(slopes)
        gradient[k, : len(row)] = row * n_prime / len(more)
    return _Confined(mean, gradient, np.concatenate(cells), free)


def _confined_by_levels(levels: NDArray[np.int64], nodes: int, resolution: int) -> _Confined:
    """Estimate the confined chunks from the logarithm of ``F[k]/Z0``, where ``F[k]`` is the mean over sets of k nodes.

    ``ln F[k]`` is too low by half the variance of ``F[k]/E F[k]``, and ``ln Z0`` likewise. Both variances are computed
    from the level counts, and half of their difference is added to the estimate.
    """
    n_prime, sizes = int(levels.sum()), range(resolution)
    cells = levels[:resolution].astype(np.float64)
    inside = np.array([[math.comb(k, j) / math.comb(nodes, j) for j in sizes] for k in sizes])
    zero = float(cells[0])
    more = inside[:, 1:] @ cells[1:]
    free = zero + more
    change = -more / (zero * free)  # 1/F[k] - 1/Z0
    bias = (inside[:, 1:] ** 2 @ cells[1:]) / free**2 + change * (1 + zero / free)
    mean = n_prime * (np.log1p(more / zero) + bias / 2)
    gradient = n_prime * inside / free[:, None]
    gradient[:, 0] = n_prime * change
    return _Confined(mean, gradient, cells, free)


def _solve(confined: _Confined, levels: NDArray[np.int64], nodes: int, replication_factor: int) -> Spectrum:
    """Compute the chunks with l replicas from those confined to k nodes; the last class has all others."""
    resolution, n_prime, zero = len(confined.mean), int(levels.sum()), int(levels[0])
    union = union_estimate(zero, n_prime)
    inversion = np.zeros((resolution - 1, resolution))
    for level in range(1, resolution):
        for k in range(level + 1):
            inversion[level - 1, k] = math.comb(nodes, level) * (-1) ** (level - k) * math.comb(level, k)
    counts = inversion @ confined.mean
    counts = np.append(counts, union.estimate - counts.sum())
    gradient = inversion @ confined.gradient
    top = -gradient.sum(axis=0)
    top[0] -= n_prime / zero
    gradient = np.vstack([gradient, top])
    drift = gradient @ confined.cells
    covariance = (gradient * confined.cells) @ gradient.T - np.outer(drift, drift) / n_prime - np.diag(counts)
    hidden = n_prime / confined.free - 1
    proven = proven_by_levels(levels, resolution)
    return Spectrum(nodes, replication_factor, union, counts, covariance, hidden, proven, saturated=False)
