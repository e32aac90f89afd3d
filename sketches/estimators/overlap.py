"""What nodes have in common: the chunks that lie on all of them, and their Jaccard index.

Let ``E(B)`` be the registers empty on all nodes of a set B, and ``L(B) = -N' ln(E(B)/N')`` the linear counting of their
union. The chunks common to A are ``sum over B in A of (-1)^(|B|+1) L(B)`` (inclusion and exclusion; B empty adds 0).
For a fixed set of chunks ``Cov(L(S), L(T)) = N' g(w/N')`` with ``g(x) = e^x - 1 - x`` and w the chunks that both S and
T hold: the covariance of two counts of empty registers, divided by their means (derived here; Whang, Vander-Zanden and
Taylor, 1990, have it for S = T). All variances below are sums of this covariance.

The exact numbers of chunks on nodes must not replace the estimates: errors common to the three terms of a pair would no
longer cancel, and the error of the intersection would double.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from sketches.estimators.discrete import NORMAL_SD, count_interval
from sketches.estimators.estimate import Z_95, Estimate
from sketches.estimators.union import union_estimate
from sketches.registers import checked_registers

Floats: TypeAlias = NDArray[np.float64]
Number = TypeVar("Number", np.int64, np.float64)

MAX_NODES = 20
"""The most nodes of one intersection: it takes a sum over all subsets of the nodes."""


@dataclass(frozen=True)
class Overlap:
    """What a set of nodes has in common, with 95 % intervals.

    Attributes:
        intersection: chunks on all of the nodes. When saturated, the lower bound is 0, and the upper bound is None only
            if no node has an empty register.
        intersection_variance: variance of the intersection, in chunks squared; 0 when saturated.
        jaccard: intersection over union, in [0, 1]; 1 for nodes that are all empty. When saturated, a range in [0, 1].
        jaccard_variance: variance of the Jaccard index; 0 when saturated.
    """

    intersection: Estimate
    intersection_variance: float
    jaccard: Estimate
    jaccard_variance: float


@dataclass(frozen=True)
class PairwiseOverlaps:
    """What every two of m nodes have in common; an entry on the diagonal is for a single node.

    Attributes:
        n_prime: N', registers of each sketch.
        empty: registers that are empty on both nodes, int64 ``[m, m]``.
        saturated: whether no register is empty on both, bool ``[m, m]``; the entries of all matrices below are then 0.
        union: chunks on either node, float64 ``[m, m]``, like all matrices below.
        intersection: chunks on both nodes; unbiased, and therefore sometimes below 0.
        intersection_variance: variance of the intersection, in chunks squared.
        jaccard: intersection over union, in [0, 1].
        jaccard_variance: variance of the Jaccard index.
    """

    n_prime: int
    empty: NDArray[np.int64]
    saturated: NDArray[np.bool_]
    union: NDArray[np.float64]
    intersection: NDArray[np.float64]
    intersection_variance: NDArray[np.float64]
    jaccard: NDArray[np.float64]
    jaccard_variance: NDArray[np.float64]

    def pair(self, a: int, b: int) -> Overlap:
        """The overlap of nodes ``a`` and ``b``, with its intervals."""
        moments = self.intersection, self.intersection_variance, self.jaccard, self.jaccard_variance
        empty = int(self.empty[a, b]), [int(self.empty[a, a]), int(self.empty[b, b])]
        return _overlap(*empty, self.n_prime, *(float(matrix[a, b]) for matrix in moments))


def pairwise_overlaps(registers: NDArray[np.uint8]) -> PairwiseOverlaps:
    """Estimate what every two nodes have in common.

    The chunks on both nodes are ``I = U_A + U_B - U_AB``, from the unions of node A, of node B and of both, with the
    bias ``(e^t - 1)/2`` of each union at a load t subtracted. With the loads a of A, b of B, u of their union
    ``U = U_AB`` and ``i = a + b - u`` of I in chunks per register, ``Var I = N' [g(u) + 2 g(i) - g(a) - g(b)]``,
    ``Cov(I, U) = N' [g(a) + g(b) - g(u)]`` and ``Var J = (Var I + J^2 Var U - 2 J Cov(I, U)) / U^2``.

    Args:
        registers: aligned registers of m nodes, shape ``[m, n_prime]``; it only matters whether they are zero.

    The estimates are valid if about 20 registers or more are empty on both nodes: up to 3 chunks per register at
    N' = 1000 and 8 at 10^5. Simulations at .0005 to 3 chunks per register, N' = 10^3 to 10^5, with disjoint,
    overlapping and near-identical nodes, show no bias, a root mean square error of 1.0 standard deviations, and a
    coverage of .94 to 1 for both the intersection and the Jaccard index (the noise of the simulation is .007).

    Raises:
        ValueError: as by `checked_registers`.
    """
    registers = checked_registers(registers)
    n_prime = registers.shape[1]
    empty = _empty_on_both(registers)
    saturated = empty == 0
    load = -np.log(np.maximum(empty, 1) / n_prime)
    corrected = n_prime * load - np.expm1(load) / 2
    node, own = np.diagonal(corrected), np.diagonal(load)
    intersection = node[:, None] + node - corrected
    of_nodes = _g(own)[:, None] + _g(own)
    variance = n_prime * np.maximum(_g(load) + 2 * _g(own[:, None] + own - load) - of_nodes, 0.0)
    covariance = n_prime * (of_nodes - _g(load))
    jaccard, jaccard_variance = _jaccard(intersection, variance, corrected, n_prime * _g(load), covariance)
    moments = (corrected, intersection, variance, jaccard, jaccard_variance)
    return PairwiseOverlaps(n_prime, empty, saturated, *(np.where(saturated, 0.0, moment) for moment in moments))


def overlap(registers: NDArray[np.uint8]) -> Overlap:
    """Estimate what k nodes have in common, all of them at once.

    The pattern of a register is the set of nodes where it is not zero, and Y(P) is the number of registers with pattern
    P. Inclusion and exclusion computes the number I of common chunks from all Y(P). The derivative of I by Y(P) is
    ``d(P) = N' sum over B disjoint from P of (-1)^|B| / E(B)``. As ``sum d Y = 0``, the multinomial variance is
    ``sum d^2 Y``. I is subtracted from this variance, because the number of chunks is fixed and not Poisson:
    ``Var I = sum d^2 Y - I``.

    Args:
        registers: aligned registers of k nodes, 1 to 20, shape ``[k, n_prime]``; it only matters whether they are zero.
            The estimate is valid if about 20 registers or more are empty on all nodes.

    Raises:
        ValueError: there are not 1 to 20 nodes, or as by `checked_registers`.
    """
    registers = checked_registers(registers)
    if not 1 <= len(registers) <= MAX_NODES:
        raise ValueError(f"an overlap is of 1 to {MAX_NODES} nodes, not {len(registers)}")
    n_prime = registers.shape[1]
    patterns = _patterns(registers)
    subsets = np.arange(len(patterns))
    empty = _sum_over_subsets(patterns)[::-1]
    of_nodes = [int(empty[1 << node]) for node in range(len(registers))]
    if empty[-1] == 0:
        return _overlap(0, of_nodes, n_prime, 0.0, 0.0, 0.0, 0.0)
    sign = np.where(np.bitwise_count(subsets) % 2, 1.0, -1.0)
    load = -np.log(empty / n_prime)
    corrected = n_prime * load - np.expm1(load) / 2
    by_intersection = -n_prime * _sum_over_subsets(sign / empty)[::-1]
    by_union = np.where(subsets == 0, 1 - n_prime / empty[-1], 1.0)
    chunks = n_prime * (sign @ load)
    variance = np.maximum(by_intersection**2 @ patterns - chunks, 0.0)
    covariance = (by_intersection * by_union) @ patterns - chunks
    shared, union = np.asarray(sign @ corrected), np.asarray(corrected[-1])
    jaccard, jaccard_variance = _jaccard(shared, variance, union, n_prime * _g(load[-1]), covariance)
    moments = (float(moment) for moment in (shared, variance, jaccard, jaccard_variance))
    return _overlap(int(empty[-1]), of_nodes, n_prime, *moments)


def _overlap(
    empty: int,
    empty_on_node: Sequence[int],
    n_prime: int,
    shared: float,
    variance: float,
    jaccard: float,
    jaccard_variance: float,
) -> Overlap:
    """Make the estimates of an overlap, with their intervals, from means and variances.

    ``empty`` registers are empty on all of its nodes, and ``empty_on_node`` has the empty registers of each node.
    """
    union, nodes = union_estimate(empty, n_prime), [union_estimate(zero, n_prime) for zero in empty_on_node]
    most = min((node.upper_bound for node in nodes if node.upper_bound is not None), default=None)
    if union.saturated or most is None:
        return _bound(union.lower_bound, [node.upper_bound for node in nodes])
    lower, upper = count_interval(shared, math.sqrt(variance), n_prime / min(empty_on_node), 0.0, most)
    intersection = Estimate(min(max(shared, lower), upper), lower, upper, saturated=False)
    if union.estimate == 0:
        return Overlap(intersection, 0.0, Estimate(1.0, 1.0, 1.0, saturated=False), 0.0)
    # Z0 is ``empty``. A chunk that is not on all nodes can be seen in the registers only if no other chunk is in its
    # register: the probability is Z0/N'. The variance of the number D of chunks that are not on all nodes is therefore
    # at least D (N'/Z0 - 1). The interval solves for D as Wilson's interval does. So nodes without a visible difference
    # are not taken as certainly identical.
    step = n_prime / empty
    hidden = Z_95 * (step - 1) / (2 * union.estimate)
    few = math.sqrt(jaccard_variance) * union.estimate < NORMAL_SD * step
    widening = max(step / 2, 1.0) / union.estimate if few else 0.0
    middle, half = jaccard - Z_95 * hidden, Z_95 * math.sqrt(jaccard_variance + hidden**2) + widening
    index = Estimate(jaccard, max(middle - half, 0.0), min(middle + half, 1.0), saturated=False)
    return Overlap(intersection, variance, index, jaccard_variance)


def _bound(union: float, nodes: Sequence[float | None]) -> Overlap:
    """Return the bounds of the overlap I that are known if no register is empty on all of the k nodes.

    The bounds are ``sum n >= U + (k - 1) I`` and ``I <= n``, with n the chunks on each node and U their union.
    """
    known = [node for node in nodes if node is not None]
    most = min(known, default=None)
    if most is not None and len(known) == len(nodes) > 1:
        most = max(min(most, (sum(known) - union) / (len(nodes) - 1)), 0.0)
    highest = 1.0 if most is None else min(most / union, 1.0)
    return Overlap(Estimate(0.0, 0.0, most, saturated=True), 0.0, Estimate(0.0, 0.0, highest, saturated=True), 0.0)


def _jaccard(
    shared: Floats, variance: Floats, union: Floats, union_variance: Floats, covariance: Floats
) -> tuple[Floats, Floats]:
    """The Jaccard index and its variance, by the delta method."""
    size = np.where(union > 0, union, 1.0)
    index = np.where(union > 0, np.clip(shared / size, 0.0, 1.0), 1.0)
    return index, np.maximum(variance + index**2 * union_variance - 2 * index * covariance, 0.0) / size**2


def _empty_on_both(registers: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the registers empty on both of every two nodes. Registers are packed to bits, and compared 64 at a time."""
    nodes, n_prime = registers.shape
    packed = np.zeros((nodes, -(-n_prime // 64) * 8), np.uint8)  # bits past n_prime mean not empty
    packed[:, : -(-n_prime // 8)] = np.packbits(registers == 0, axis=1)
    words = packed.view(np.uint64)
    empty = np.zeros((nodes, nodes), np.int64)
    for node in range(nodes):
        empty[node, node:] = np.bitwise_count(words[node] & words[node:]).sum(axis=1, dtype=np.int64)
    return np.maximum(empty, empty.T)


def _patterns(registers: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count registers by the set of nodes on which they are not zero: int64 ``[2^k]``; a node is a bit of the index."""
    pattern = np.zeros(registers.shape[1], np.int32)
    for node, row in enumerate(registers):
        pattern |= (row != 0).astype(np.int32) << node
    return np.bincount(pattern, minlength=1 << len(registers))


def _sum_over_subsets(values: NDArray[Number]) -> NDArray[Number]:
    """For every set, sum ``values`` over its subsets, by Yates's algorithm: one pass for each element."""
    sums = values.copy()
    for bit in range(len(values).bit_length() - 1):
        halves = sums.reshape(-1, 2, 1 << bit)
        halves[:, 1] += halves[:, 0]
    return sums


def _g(load: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(np.expm1(load) - load, 0.0)
