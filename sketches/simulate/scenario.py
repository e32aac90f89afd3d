"""A cluster to simulate: its description, and one random realisation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sketches.estimators.null import ExpectedOverlap, fitted_overlap, simulated_overlap, uniform_overlap
from sketches.simulate.placement import Placement, count, mixture, uniform, weighted, zoned

PLACEMENTS: Mapping[str, Callable[[int], Placement]] = {"uniform": uniform, "weighted": weighted, "zoned": zoned}


@dataclass(frozen=True)
class Scenario:
    """A cluster and its chunks.

    Attributes:
        nodes: m, the number of nodes.
        chunks: distinct chunks on record.
        replication: replication factor, 1 to m → share of the chunks that have it as their target; adds up to 1.
        n_prime: N', registers of each sketch.
        tau: the level at which a register saturates, 1 to 255.
        placement: a key of `PLACEMENTS`.
        degraded: share of the chunks that have lost one of their replicas, in [0, 1].
        offline: number of nodes that do not answer, fewer than m. Every realisation draws the offline nodes again, and
            leaves out their sketches.
    """

    nodes: int
    chunks: int
    replication: Mapping[int, float]
    n_prime: int
    tau: int
    placement: str
    degraded: float
    offline: int

    @property
    def replication_factor(self) -> int:
        """The largest target."""
        return max(self.replication)

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """Replicas that each chunk should have, int64 ``[chunks]``."""
        return mixture(self.chunks, self.replication)

    def realise(self, rng: np.random.Generator) -> "Realisation":
        """Place the chunks, lose replicas, take nodes offline and hash."""
        placed = PLACEMENTS[self.placement](self.nodes).hold(self.targets, rng)
        held = placed.copy()
        losers = rng.choice(self.chunks, round(self.chunks * self.degraded), replace=False)
        lost = np.argmax(np.where(placed[:, losers], rng.random((self.nodes, len(losers))), -1.0), axis=0)
        held[lost, losers] = False
        online = np.sort(rng.permutation(self.nodes)[self.offline :])
        register = rng.integers(0, self.n_prime, self.chunks)
        registers = count(held[online], register, self.n_prime, self.tau)
        return Realisation(placed, online, held[online], register, registers)

    def expected_overlap(self, rng: np.random.Generator) -> Callable[["Realisation"], ExpectedOverlap]:
        """Return a function that gives the overlaps of a realisation's online nodes if no replica was lost.

        The expected overlaps come from the null that fits the placement.
        """
        factors, numbers = np.unique(self.targets, return_counts=True)
        replicas = dict(zip(factors.tolist(), numbers.tolist(), strict=True))
        if self.placement == "weighted":
            return lambda seen: _of_online(fitted_overlap(replicas, seen.placed.sum(axis=1)), seen.online)
        if self.placement == "uniform":
            known = uniform_overlap(replicas, self.nodes)
        else:
            known = simulated_overlap(replicas, lambda chunks: zoned(self.nodes).rank(chunks, rng))
        return lambda seen: _of_online(known, seen.online)


@dataclass(frozen=True, eq=False)
class Realisation:
    """One random realisation of a scenario, with k nodes online.

    Attributes:
        placed: bool ``[m, chunks]``, where replicas were placed.
        online: int64 ``[k]``, the nodes online.
        held: bool ``[k, chunks]``, the replicas that are left on the nodes online.
        register: int64 ``[chunks]``, the register of each chunk: a uniform random draw.
        registers: uint8 ``[k, N']``, the sketches.
    """

    placed: NDArray[np.bool_]
    online: NDArray[np.int64]
    held: NDArray[np.bool_]
    register: NDArray[np.int64]
    registers: NDArray[np.uint8]

    @cached_property
    def replicas(self) -> NDArray[np.int64]:
        """Replicas of each chunk on the nodes online, int64 ``[chunks]``."""
        return np.asarray(self.held.sum(axis=0), np.int64)


def _of_online(overlap: ExpectedOverlap, online: NDArray[np.int64]) -> ExpectedOverlap:
    which = np.ix_(online, online)
    return ExpectedOverlap(overlap.mean[which], overlap.variance[which])
