"""Places chunks on nodes, and makes the sketches of these nodes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 1 << 18
"""This many chunks are placed at a time: their data fits the processor's cache and takes little memory."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Nodes with weights and zones, on which replicas are placed as in weighted rendezvous hashing.

    Attributes:
        weights: float64 ``[m]``, above 0: the share of replicas that a node gets, relative to the other nodes.
        zones: int64 ``[m]``; a chunk's replicas go to distinct zones first.
    """

    weights: NDArray[np.float64]
    zones: NDArray[np.int64]

    @property
    def nodes(self) -> int:
        """m, the number of nodes."""
        return len(self.weights)

    def hold(self, replicas: ArrayLike, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Choose the nodes of each chunk.

        Args:
            replicas: integers ``[n]``, the replicas of each chunk; a number above m counts as m.
            rng: the source of random numbers.

        Returns:
            bool ``[m, n]``: whether a node holds a chunk.
        """
        wanted = np.asarray(replicas)
        held = np.empty((self.nodes, len(wanted)), np.bool_)
        for start in range(0, len(wanted), BLOCK):
            part = slice(start, start + BLOCK)
            held[:, part] = self._place(len(wanted[part]), rng) < wanted[part]
        return held

    def rank(self, chunks: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Draw chunks, and return for each chunk the nodes in its order of preference, shape ``[chunks, m]``."""
        return np.argsort(self._place(chunks, rng), axis=0).T

    def _place(self, chunks: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Return each node's place in each chunk's order of preference, ``[m, chunks]``.

        A weighted random order sorts exponential times whose rates are the weights (Efraimidis and Spirakis, 2006). The
        second-best node of every zone comes after the best nodes of all zones, and so on.
        """
        times = rng.standard_exponential((self.nodes, chunks)) / self.weights[:, None]
        order = times / (1 + times)  # the same order, below 1
        for zone in np.unique(self.zones):
            members = np.flatnonzero(self.zones == zone)
            order[members] += np.argsort(np.argsort(order[members], axis=0), axis=0)
        return np.argsort(np.argsort(order, axis=0), axis=0)


def uniform(nodes: int) -> Placement:
    """All nodes are alike: this is the only exchangeable placement."""
    return Placement(np.ones(nodes), np.arange(nodes))


def weighted(nodes: int) -> Placement:
    """The nodes have weights from 1 to 4."""
    return Placement(np.linspace(1, 4, nodes), np.arange(nodes))


def zoned(nodes: int) -> Placement:
    """Three zones of nearly equal size (fewer zones if there are fewer than three nodes)."""
    return Placement(np.ones(nodes), np.arange(nodes) % 3)


def sketch(held: NDArray[np.bool_], n_prime: int, rng: np.random.Generator, tau: int = 255) -> NDArray[np.uint8]:
    """Hash each chunk to one register, which is the same on all its nodes.

    A second call gives the sketches of the same chunks at the same places with another seed.

    Args:
        held: bool ``[m, n]``: whether a node holds a chunk.
        n_prime: N', registers of each sketch.
        rng: the source of random numbers, which draws the registers.
        tau: the level at which a register saturates, 1 to 255.

    Returns:
        uint8 ``[m, n_prime]``.
    """
    return count(held, rng.integers(0, n_prime, (held.shape[1],)), n_prime, tau)


def count(held: NDArray[np.bool_], register: NDArray[np.int64], n_prime: int, tau: int) -> NDArray[np.uint8]:
    """Count chunks in their registers: bool ``[m, n]`` and int64 ``[n]`` → uint8 ``[m, n_prime]``, at most ``tau``."""
    counts = [np.bincount(register[row], minlength=n_prime) for row in held]
    return np.minimum(np.reshape(counts, (len(held), n_prime)), tau).astype(np.uint8)


def mixture(chunks: int, shares: Mapping[int, float]) -> NDArray[np.int64]:
    """Replicas of each of ``chunks`` chunks: a share ``shares[r]`` has r replicas; the last r takes rounding errors."""
    numbers = [round(chunks * share) for share in shares.values()]
    numbers[-1] = chunks - sum(numbers[:-1])
    return np.repeat(np.array(list(shares)), numbers)
