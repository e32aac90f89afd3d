"""Draws the registers of sketches from their exact distribution, without hashing every chunk.

Estimators only read how many registers are not zero on which nodes. Chunks on the same nodes are alike, so a placement
is described by the number of chunks on each set of nodes. Registers are alike too, so a throw of chunks into registers
is described by the number of registers that it hits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from sketches.estimators.occupancy import Occupancy, count_occupancy, subsets
from sketches.simulate.placement import Placement

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NEGLIGIBLE = 1e-25
"""The tails of a distribution are cut off where probabilities are smaller than this number."""


@dataclass(frozen=True, eq=False)
class Distribution:
    """The distribution of the number of occupied registers: ``probabilities`` of ``first``, ``first + 1``, …"""

    first: int
    probabilities: Floats

    @cached_property
    def cumulative(self) -> Floats:
        return np.cumsum(self.probabilities)

    def draw(self, runs: int, rng: np.random.Generator) -> Integers:
        """Draw numbers of registers, int64 ``[runs]``."""
        return self.first + np.searchsorted(self.cumulative[:-1], rng.random(runs), side="right")


@dataclass(frozen=True, eq=False)
class Throws:
    """The distributions of the number of registers that chunks hit.

    Attributes:
        n_prime: N', number of registers.
        occupied: number of chunks → distribution of the number of registers that they occupy. The numbers of chunks are
            1, 2, 4, … and, if wanted, others.
    """

    n_prime: int
    occupied: Mapping[int, Distribution]

    def draw(self, chunks: int, runs: int, rng: np.random.Generator) -> Integers:
        """Draw how many registers ``chunks`` chunks occupy, int64 ``[runs]``.

        The chunks are thrown in several groups. For each size of a group, the distribution of the number of
        registers that the group occupies is known. Two throws hit independent random sets of registers, so the number
        of registers that both hit is hypergeometric.
        """
        hit = np.zeros(runs, np.int64)
        for part in sorted(self.occupied, reverse=True):
            while chunks >= part:
                more, chunks = self.occupied[part].draw(runs, rng), chunks - part
                hit += more - rng.hypergeometric(hit, self.n_prime - hit, more)
        return hit


def throws(n_prime: int, stops: Sequence[int]) -> Throws:
    """Return throws of up to ``stops[-1]`` chunks, with the distributions at all ``stops``."""
    powers = [1 << power for power in range(stops[-1].bit_length())]
    return Throws(n_prime, dict(occupied_registers(n_prime, sorted({*powers, *stops}))))


def occupied_registers(n_prime: int, stops: Sequence[int]) -> Iterator[tuple[int, Distribution]]:
    """Compute the distribution of how many registers n chunks occupy, chunk by chunk.

    If u registers are occupied, the next chunk occupies a new register with probability (N' - u)/N'.

    Yields:
        For every n in ``stops``, ascending: n, and the distribution, which is exact except for rounding.
    """
    stays = np.arange(n_prime + 2) / n_prime
    first, probabilities, chunks = 0, np.ones(1), 0
    for stop in stops:
        while chunks < stop:
            same = probabilities * stays[first : first + len(probabilities)]
            grown = np.append(same, 0.0)
            grown[1:] += probabilities - same
            start, end = 0, len(grown)
            while grown[start] < NEGLIGIBLE:
                start += 1
            while grown[end - 1] < NEGLIGIBLE:
                end -= 1
            first, probabilities, chunks = first + start, grown[start:end], chunks + 1
        yield stop, Distribution(first, probabilities / probabilities.sum())


@dataclass(frozen=True, eq=False)
class Placed:
    """Chunks by the nodes on which they lie.

    Attributes:
        nodes: m, at most 32.
        sets: uint32 ``[k]``, sets of nodes, with a bit for each node.
        chunks: int64 ``[k]``, number of chunks that lie on exactly the nodes of each set.
    """

    nodes: int
    sets: NDArray[np.uint32]
    chunks: Integers

    @property
    def chunks_per_node(self) -> Integers:
        """Number of chunks on each node, int64 ``[m]``."""
        return np.array([self.chunks[self.sets >> node & 1 == 1].sum() for node in range(self.nodes)])


def place(placement: Placement, replicas: Mapping[int, int], rng: np.random.Generator) -> Placed:
    """Place chunks as `Placement.hold` does.

    Args:
        placement: the nodes, their weights and zones.
        replicas: number of replicas r, at most the number of zones → number of chunks with r replicas.
        rng: draws the number of chunks on each set of nodes.
    """
    sets, chunks = [], []
    for size, number in replicas.items():
        members, probabilities = node_sets(placement, size)
        sets.append((1 << members).sum(axis=1).astype(np.uint32))
        chunks.append(rng.multinomial(number, probabilities))
    return Placed(placement.nodes, np.concatenate(sets), np.concatenate(chunks))


def node_sets(placement: Placement, size: int) -> tuple[Integers, Floats]:
    """Return the sets of nodes that may hold a chunk of ``size`` replicas, and the probability of each set.

    ``size`` is at most the number of zones. For each chunk, the best node of each zone comes before all second-best
    nodes. If nodes have exponential times with their weights w as rates, node i is first with probability
    ``w_i/sum w``, independently of the first time. Zones, and the nodes in them, are therefore drawn by weight and
    without replacement.

    Returns:
        The sets, int64 ``[k, size]``, and the probabilities, float64 ``[k]``, which sum to 1.
    """
    members = subsets(placement.nodes, size)
    members = members[(np.diff(np.sort(placement.zones[members], axis=1), axis=1) > 0).all(axis=1)]
    of_zone = np.bincount(placement.zones, placement.weights)[placement.zones]
    probabilities = np.zeros(len(members))
    for order in permutations(range(size)):
        drawn = members[:, order]
        taken = np.cumsum(of_zone[drawn], axis=1) - of_zone[drawn]
        probabilities += np.prod(placement.weights[drawn] / (placement.weights.sum() - taken), axis=1)
    return members, probabilities / probabilities.sum()


def occupancies(placed: Placed, depth: int, hit: Throws, runs: int, rng: np.random.Generator) -> Iterator[Occupancy]:
    """Hash the chunks ``runs`` times, and count the registers as `count_occupancy` would.

    Registers with a chunk of more than ``depth`` replicas are at levels above ``depth``. On which nodes these registers
    are above zero does not matter: all of them are counted at the last level. Only the chunks with fewer replicas are
    thrown, into the other registers.
    """
    few = np.bitwise_count(placed.sets) <= depth
    sets, chunks = placed.sets[few], placed.chunks[few]
    for high in hit.draw(int(placed.chunks[~few].sum()), runs, rng).tolist():
        free = hit.n_prime - high
        landed = rng.binomial(chunks, free / hit.n_prime)
        seen = np.zeros(free, np.uint32)
        np.bitwise_or.at(seen, rng.integers(0, free, landed.sum()), np.repeat(sets, landed))
        # One empty register is added, because `count_occupancy` refuses sketches without registers.
        seen = np.append(seen[seen > 0], np.uint32(0))
        low = count_occupancy((seen >> np.arange(placed.nodes, dtype=np.uint32)[:, None] & 1).astype(np.uint8), depth)
        levels = low.level_counts.copy()
        levels[0], levels[-1] = free - (len(seen) - 1), levels[-1] + high
        yield Occupancy(hit.n_prime, placed.nodes, levels, (levels[:1], *low.patterns[1:]))


def registers(
    placed: Placed, nodes: Integers, hit: Throws, runs: int, rng: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    """Hash the chunks ``runs`` times, and yield the sketches of a few ``nodes``, with the registers sorted.

    The kind of a register is the set of nodes on which it is not zero. Chunks are thrown for one set of nodes after the
    other. The numbers of registers of each kind that a throw hits are multivariate hypergeometric.

    Yields:
        uint8 ``[len(nodes), N']``; only zero and non-zero registers are distinguished.
    """
    sets = sum((placed.sets >> node & 1) << at for at, node in enumerate(nodes))
    chunks = np.bincount(sets, placed.chunks, 1 << len(nodes)).astype(np.int64)
    kinds = np.zeros((len(chunks), runs), np.int64)  # The number of registers of each kind.
    kinds[0] = hit.n_prime
    for thrown in range(1, len(chunks)):
        if chunks[thrown]:
            wanted, left = hit.draw(int(chunks[thrown]), runs, rng), np.full(runs, hit.n_prime)
            for kind in range(len(kinds)):
                if kind & thrown != thrown and kinds[kind].any():
                    left -= kinds[kind]
                    moved = rng.hypergeometric(kinds[kind], left, wanted)
                    wanted -= moved
                    kinds[kind] -= moved
                    kinds[kind | thrown] += moved
    nodes_of = np.array([[1 << at] for at in range(len(nodes))], np.uint8)
    for numbers in kinds.T:
        yield np.repeat(np.arange(len(kinds), dtype=np.uint8), numbers) & nodes_of
