"""Chunks placed on nodes, and the sketches they leave."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 1 << 18
"""Chunks placed at a time: what fits the cache and keeps memory small."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Nodes with weights and zones, on which replicas are placed as in weighted rendezvous hashing.

    Attributes:
        weights: float64 ``[m]``, above 0: share of replicas relative to the others'.
        zones: int64 ``[m]``; a chunk's replicas go to distinct zones first.
    """

    weights: NDArray[np.float64]
    zones: NDArray[np.int64]

    @property
    def nodes(self) -> int:
        """m."""
        return len(self.weights)

    def hold(self, replicas: ArrayLike, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Choose each chunk's nodes.

        Args:
            replicas: integers ``[n]``, of each chunk; more than m are m.
            rng: what is drawn from.

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
        """Draw ``chunks`` chunks, and return the nodes in the order in which each prefers them, ``[chunks, m]``."""
        return np.argsort(self._place(chunks, rng), axis=0).T

    def _place(self, chunks: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Each node's place in each chunk's order of preference, ``[m, chunks]``.

        A weighted random order sorts exponential times of the weights' rates (Efraimidis and Spirakis, 2006). The
        second-best node of every zone comes after all the best ones, and so on.
        """
        times = rng.standard_exponential((self.nodes, chunks)) / self.weights[:, None]
        order = times / (1 + times)  # the same order, below 1
        for zone in np.unique(self.zones):
            members = np.flatnonzero(self.zones == zone)
            order[members] += np.argsort(np.argsort(order[members], axis=0), axis=0)
        return np.argsort(np.argsort(order, axis=0), axis=0)


def uniform(nodes: int) -> Placement:
    """All nodes alike: the one exchangeable placement."""
    return Placement(np.ones(nodes), np.arange(nodes))


def weighted(nodes: int) -> Placement:
    """Weights from 1 to 4."""
    return Placement(np.linspace(1, 4, nodes), np.arange(nodes))


def zoned(nodes: int) -> Placement:
    """Three zones, as even as can be (fewer with fewer nodes)."""
    return Placement(np.ones(nodes), np.arange(nodes) % 3)


def sketch(held: NDArray[np.bool_], n_prime: int, rng: np.random.Generator, tau: int = 255) -> NDArray[np.uint8]:
    """Hash the chunks, each to one register on all its nodes.

    Calling it again gives another seed's sketches of the same chunks at the same places.

    Args:
        held: bool ``[m, n]``.
        n_prime: N', registers of each sketch.
        rng: draws the registers.
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
    """Replicas of each of ``chunks`` chunks: ``shares[r]`` of them have r; the last r takes what rounding leaves."""
    numbers = [round(chunks * share) for share in shares.values()]
    numbers[-1] = chunks - sum(numbers[:-1])
    return np.repeat(np.array(list(shares)), numbers)
