"""Blast radius: how many chunks would be lost if a set of nodes died, from the sketches alone.

A chunk is *confined* to a set A of nodes if all of its replicas lie on nodes of A. Let F(A) be the number of registers
that are zero on every node outside A, and Z0 the number of registers that are zero on all nodes. ``N' ln(F(A)/Z0)``
estimates the number of confined chunks (see `confinement`), with the bias ``N' (1/F - 1/Z0)/2`` subtracted. The
variance of the estimate is ``N'^2 (1/Z0 - 1/F)`` less the number of confined chunks, because that number is fixed and
not Poisson.

For a healthy placement, the expected number c of chunks confined to A follows from the weights that explain how full
the nodes are: r replicas lie within A if the first r arrivals of the race (see `race`) do. As placement is random, each
of the F(A) registers then holds a confined chunk with probability ``1 - e^(-c/N')``. The number of registers that hold
a confined chunk is binomial, exactly so if the number of confined chunks is Poisson. The scores use the binomial law: a
healthy placement confines only few chunks to a set, and the normal law fails for small numbers.
"""

import math
from collections.abc import Collection, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sketches.estimators.epochs import History
from sketches.estimators.estimate import Z_95, Estimate, at_least, whole_chunks
from sketches.estimators.occupancy import MAX_TERMS, containment, count_occupancy, subsets
from sketches.estimators.spectrum import MIN_ZERO_REGISTERS, score_interval
from sketches.registers import checked_registers

Floats: TypeAlias = NDArray[np.float64]
Set: TypeAlias = tuple[int, ...]

SEEDS = 64
"""If `worst_sets` cannot examine every set, it begins with this many small sets and adds nodes to them."""

LARGEST_SET = 12
"""The most nodes in a set of `expected_confined`, which sums over all subsets of the set."""


def blast_radius(registers: NDArray[np.uint8], nodes: Collection[int]) -> Estimate:
    """Estimate how many chunks have all of their replicas on ``nodes``, and would be lost with them.

    Every register that is zero on all other nodes and not zero on ``nodes`` proves a confined chunk, unless the
    register still counts a chunk that was removed. If a node outside ``nodes`` still counts a removed chunk in a
    register, that register hides confined chunks.

    Args:
        registers: uint8 ``[m, N']``, sketches of all online nodes; it only matters whether registers are zero.
        nodes: the set A, as rows of ``registers``.

    Returns:
        The number with its 95 % interval; where fewer than 20 registers are zero everywhere, only a lower bound.

    Raises:
        ValueError: as by `checked_registers`, or a node is not a row of ``registers``.
    """
    registers = checked_registers(registers)
    shown, free = _shown(registers, nodes)
    return _confined(shown, free - shown, registers.shape[1])


def worst_sets(registers: NDArray[np.uint8], size: int, most: int) -> list[tuple[Set, Estimate]]:
    """Find the sets of ``size`` nodes whose loss would cost most chunks.

    Every set is examined if the sets have at most 4 million subsets together: triples of up to 147 nodes, or sets of
    four of up to 51 nodes. If the sets have more subsets, only some sets are examined. A register *shows* the set of
    nodes on which it is not zero. The search takes the 64 sets of at most ``size`` nodes that are shown by the most
    registers. To each of these sets the search adds nodes one by one, each time the node that adds most registers. The
    search then compares the grown sets with all sets of ``size`` nodes that some register shows. A set is therefore
    missed if no register shows it and none of the 64 sets grows into it. If a missed set has confined chunks at all,
    each of them has fewer than ``size`` replicas, or its register also counts another chunk.

    Args:
        registers: uint8 ``[m, N']``, sketches of all online nodes; it only matters whether registers are zero.
        size: nodes in a set, 1 to m.
        most: how many sets to return at most.

    Returns:
        Sets (their nodes ascending) with the chunks confined to them as from `blast_radius`. The set with most chunks
        is first. A set is left out if no register shows a chunk of it.

    Raises:
        ValueError: as by `checked_registers`, or ``size`` is not 1 to m.
    """
    registers = checked_registers(registers)
    if not 1 <= size <= len(registers):
        raise ValueError(f"there are no sets of {size} out of {len(registers)} nodes")
    found = _every_set(registers, size) if _tractable(len(registers), size) else _grown_sets(registers, size)
    sets, shown, empty = found
    order = [place for place in np.lexsort((*sets.T[::-1], -shown))[:most].tolist() if shown[place]]
    n_prime = registers.shape[1]
    return [(tuple(sets[place].tolist()), _confined(int(shown[place]), empty, n_prime)) for place in order]


def expected_confined(history: History, sets: Sequence[Collection[int]]) -> Floats:
    """Compute how many chunks a healthy placement would confine to each set of nodes.

    The first arrivals of a race are the nodes of a set S with probability
    ``G(S) = sum over a in S of G(S without a) w_a / (W - W(S without a))``. Here ``w_a`` is the weight of node a,
    ``W(S)`` the sum of the weights of S, and W that of all nodes. The probability that r replicas lie within A is the
    sum of ``G(S)`` over all S of r nodes of A. Chunks with as many replicas as their epoch has nodes lie on all these
    nodes. Placement over zones is not a race: it confines fewer chunks than this to the nodes of one zone, and more to
    sets with one node of each zone.

    If the nodes of a set O do not answer, only the sketches of the other nodes are read. A chunk then seems confined to
    A if it lies within A and O together, but not within O alone. The expected number of these chunks is the number for
    A and O together, less the number for O.

    Args:
        history: where chunks were placed, fitted to how full the nodes are.
        sets: sets of one size, of up to 12 nodes each.

    Returns:
        float64 ``[sets]``.

    Raises:
        ValueError: the sets have several sizes, or more than 12 nodes.
    """
    if len({len(nodes) for nodes in sets}) > 1 or any(len(nodes) > LARGEST_SET for nodes in sets):
        raise ValueError(f"sets of one size are compared, of up to {LARGEST_SET} nodes")
    expected = np.zeros(len(sets))
    if not any(sets):
        return expected
    chosen = np.array([sorted(nodes) for nodes in sets], np.int64)
    for part in history.parts:
        weights = np.zeros_like(history.weights)
        weights[part.nodes] = history.weights[part.nodes]
        expected += part.everywhere * (np.isin(chosen, part.nodes).sum(axis=1) == len(part.nodes))
        if part.choosing:
            first = _first_arrivals(weights[chosen], float(weights.sum()))
            expected += sum(chunks * first[r] for r, chunks in part.choosing.items() if r < len(first))
    return expected


def confinement_scores(registers: NDArray[np.uint8], sets: Sequence[Collection[int]], expected: Floats) -> Floats:
    """Standard scores of the chunks confined to sets of nodes, against what a healthy placement would confine.

    A score is the signed root of the deviance of a binomial, with a continuity correction of half a register. The tails
    of a score are those of a normal variable even where few chunks or no chunks are expected. If all sets of one size
    are scored, or only the worst of them, compare the scores with `score_bound` for the number of all sets of that
    size.

    Args:
        registers: uint8 ``[m, N']``, sketches of all online nodes.
        sets: as for `expected_confined`.
        expected: float64 ``[sets]``, the chunks expected on each set, from `expected_confined`.

    Returns:
        float64 ``[sets]``, always finite; above 0 where more chunks are confined than should be.

    Raises:
        ValueError: as by `blast_radius`.
    """
    registers = checked_registers(registers)
    scores = np.zeros(len(sets))
    n_prime = registers.shape[1]
    for place, (nodes, chunks) in enumerate(zip(sets, expected.tolist(), strict=True)):
        shown, free = _shown(registers, nodes)
        scores[place] = _binomial_score(shown, free, -math.expm1(-chunks / n_prime))
    return scores


def _confined(shown: int, empty: int, n_prime: int) -> Estimate:
    """Estimate the chunks confined to a set that ``shown`` registers prove; ``empty`` registers are zero everywhere."""
    if empty < MIN_ZERO_REGISTERS and shown:
        return at_least(float(shown))
    if empty == 0:
        return Estimate(0.0, 0.0, None, saturated=True)
    free = shown + empty
    change = 1 / free - 1 / empty
    estimate = n_prime * (math.log1p(shown / empty) + change / 2)
    variance = -(n_prime**2) * change - estimate
    return whole_chunks(estimate, *score_interval(estimate, variance, n_prime / free - 1, Z_95), shown)


def _shown(registers: NDArray[np.uint8], nodes: Collection[int]) -> tuple[int, int]:
    """Count registers: how many are zero outside ``nodes`` but not on ``nodes``, and how many are zero outside."""
    if any(not 0 <= node < len(registers) for node in nodes):
        raise ValueError(f"{sorted(nodes)} are not among {len(registers)} nodes")
    inside = np.zeros(len(registers), np.bool_)
    inside[list(nodes)] = True
    free = ~(registers[~inside] != 0).any(axis=0)
    return int(np.count_nonzero((registers[inside] != 0).any(axis=0) & free)), int(np.count_nonzero(free))


def _tractable(nodes: int, size: int) -> bool:
    return math.comb(nodes, size) << size <= MAX_TERMS


def _every_set(registers: NDArray[np.uint8], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return all sets ``[sets, size]``, how many registers show chunks of each set ``[sets]``, and how many are empty.

    A register shows chunks of a set if it is zero on all nodes outside the set, and not zero on some node of it.
    """
    occupancy = count_occupancy(registers, size)
    within = containment(occupancy.nodes, size)
    shown = np.zeros(math.comb(occupancy.nodes, size), np.int64)
    for k in range(1, size + 1):
        shown += occupancy.patterns[k][within[k]].sum(axis=1)
    return subsets(occupancy.nodes, size), shown, int(occupancy.level_counts[0])


def _grown_sets(registers: NDArray[np.uint8], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return what `_every_set` does, but only for sets that registers show or that grow from the most shown sets."""
    occupied = registers != 0
    levels = occupied.sum(axis=0)
    low = np.flatnonzero((levels > 0) & (levels <= size))
    packed = np.packbits(occupied[:, low], axis=0)
    _, first, counts = np.unique(packed, axis=1, return_index=True, return_counts=True)
    patterns, sizes = occupied[:, low[first]], levels[low[first]]
    whole = {tuple(np.flatnonzero(column).tolist()) for column in patterns[:, sizes == size].T}
    for place in np.argsort(-counts, kind="stable")[:SEEDS].tolist():
        grown = patterns[:, place].copy()
        while grown.sum() < size:
            lacking = sizes - patterns[grown].sum(axis=0)
            gain = np.where(grown, -1, patterns[:, lacking == 1] @ counts[lacking == 1])
            grown[int(np.argmax(gain))] = True
        whole.add(tuple(np.flatnonzero(grown).tolist()))
    sets = np.array(sorted(whole), np.int64).reshape(-1, size)
    shown = np.array([int(counts[patterns[nodes].sum(axis=0) == sizes].sum()) for nodes in sets], np.int64)
    return sets, shown, int(np.count_nonzero(levels == 0))


def _first_arrivals(weights: Floats, total: float) -> list[Floats]:
    """The probability that the first r arrivals are within a set, for r = 0 … size.

    Args:
        weights: weights of the nodes of each set, 0 for nodes that do not take part, ``[sets, size]``.
        total: the sum of the weights of all nodes.
    """
    sets, size = weights.shape
    probability, summed = np.zeros((2, 1 << size, sets))
    probability[0] = 1.0
    for members in range(1, 1 << size):
        for node in range(size):
            if members >> node & 1:
                without = members ^ (1 << node)
                rest = np.maximum(total - summed[without], weights[:, node])
                share = np.divide(weights[:, node], rest, out=np.zeros(sets), where=rest > 0)
                probability[members] += probability[without] * share
                summed[members] = summed[without] + weights[:, node]
    by_size = [[members for members in range(1 << size) if members.bit_count() == r] for r in range(size + 1)]
    return [np.asarray(probability[members].sum(axis=0)) for members in by_size]


def _binomial_score(seen: int, of: int, share: float) -> float:
    """The signed root of the deviance of ``seen`` out of ``of``, ``seen`` moved half a register towards its mean."""
    mean = of * share
    if abs(seen - mean) <= 0.5 or of == 0:
        return 0.0
    near = seen - 0.5 if seen > mean else seen + 0.5
    share = min(max(share, 1e-300), 1 - 1e-16)
    deviance = near * math.log(near / (of * share)) + (of - near) * math.log((of - near) / (of * (1 - share)))
    return math.copysign(math.sqrt(2 * max(deviance, 0.0)), seen - mean)
