"""The Level-Count Redundancy Sketch of one node, and the level counts of many."""

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketches.exceptions import IncompatibleSketches
from sketches.hashing import hash_chunks, registers_of
from sketches.registers import MAX_TAU


class LCRS:
    """Counts a node's chunks per register, one byte each, saturating at ``tau``.

    A register that reached ``tau`` is sticky: how many chunks it holds is no longer known, so it is never
    decremented, only rebuilt. A zero register therefore proves absence as long as only counted chunks are removed.

    Args:
        n_prime: number of registers N', at least 1.
        tau: the level at which a register saturates, 1 to 255.
        seed: the cluster's seed, an unsigned 32-bit integer.

    Raises:
        ValueError: ``n_prime`` or ``tau`` is out of range.
    """

    def __init__(self, n_prime: int, tau: int, seed: int) -> None:
        if n_prime < 1:
            raise ValueError(f"a sketch has at least one register, not {n_prime}")
        if not 1 <= tau <= MAX_TAU:
            raise ValueError(f"tau must be 1 to {MAX_TAU}, not {tau}")
        self.tau = tau
        self.seed = seed
        self.registers: NDArray[np.uint8] = np.zeros(n_prime, np.uint8)

    @classmethod
    def from_registers(cls, registers: ArrayLike, tau: int, seed: int) -> Self:
        """Make a sketch with a copy of ``registers`` (integers, shape ``[n_prime]``), saturated at ``tau``.

        Raises:
            ValueError: a register is negative or not an integer, or ``registers`` is not one row.
        """
        values = np.asarray(registers)
        if values.ndim != 1 or values.dtype.kind not in "biu" or (len(values) and int(values.min()) < 0):
            raise ValueError("a sketch is one row of registers, which are integers of at least 0")
        sketch = cls(len(values), tau, seed)
        sketch.registers[:] = np.minimum(values, tau)
        return sketch

    @property
    def n_prime(self) -> int:
        """Number of registers N'."""
        return len(self.registers)

    @property
    def saturated(self) -> int:
        """Number of registers that are stuck at ``tau``."""
        return int(np.count_nonzero(self.registers == self.tau))

    def load(self) -> float:
        """Chunks counted per register (a lower bound once registers are saturated)."""
        return int(self.registers.sum(dtype=np.int64)) / self.n_prime

    def stuck(self, chunks: int) -> float:
        """Number of registers at ``tau`` that a rebuild lowers: ``chunks`` chunks and chance do not explain them.

        ``chunks`` chunks fill ``N' P(X >= tau)`` registers on average, where X is Poisson with mean ``chunks / N'``.
        The variance is at most as large as this mean (occupancies are negatively associated). Three standard deviations
        are allowed for chance.

        Args:
            chunks: distinct chunks on the node, at least 0.
        """
        mean = chunks / self.n_prime
        below = sum(math.exp(n * math.log(mean) - mean - math.lgamma(n + 1)) for n in range(self.tau)) if mean else 1.0
        filled = self.n_prime * max(1 - below, 0.0)
        return max(self.saturated - filled - 3 * math.sqrt(filled), 0.0)

    def add(self, chunk_hashes: Sequence[str]) -> None:
        """Count chunks, once for each occurrence."""
        index, times = self._occurrences(chunk_hashes)
        self.registers[index] = np.minimum(self.registers[index] + times, self.tau)

    def remove(self, chunk_hashes: Sequence[str]) -> None:
        """Un-count chunks, once for each occurrence; registers at zero or at ``tau`` stay as they are."""
        index, times = self._occurrences(chunk_hashes)
        before = self.registers[index]
        self.registers[index] = np.where(before == self.tau, before, np.maximum(before - times, 0))

    def contains(self, chunk_hashes: Sequence[str]) -> NDArray[np.bool_]:
        """Tell for each chunk whether the node may hold it: False is certain, True probable. Shape ``[n]``."""
        return self.registers[registers_of(hash_chunks(chunk_hashes, self.seed), self.n_prime)].astype(np.bool_)

    def fold(self, n_prime: int) -> Self:
        """Return the sketch of ``n_prime`` registers that the same chunks would have made, exactly.

        Raises:
            IncompatibleSketches: the present size is not ``n_prime`` times a power of two.
        """
        if not folds(self.n_prime, n_prime):
            raise IncompatibleSketches(f"{self.n_prime} registers do not fold onto {n_prime}")
        sums = self.registers.reshape(-1, n_prime).sum(axis=0, dtype=np.int64)
        return self.from_registers(sums, self.tau, self.seed)

    def capped(self, tau: int) -> Self:
        """Return this sketch as if it saturated at ``tau``.

        If the tau of this sketch is lower, the result keeps the lower tau.
        """
        return self.from_registers(self.registers, min(tau, self.tau), self.seed)

    def merge(self, other: "LCRS") -> Self:
        """Return the register-wise sum of both sketches; the larger sketch folds to the size of the smaller one.

        Raises:
            IncompatibleSketches: the seeds or ``tau`` differ, or the sizes do not fold.
        """
        if (self.seed, self.tau) != (other.seed, other.tau):
            raise IncompatibleSketches("sketches of different seeds or tau do not merge")
        n_prime = min(self.n_prime, other.n_prime)
        sums = self.fold(n_prime).registers.astype(np.int64) + other.fold(n_prime).registers
        return self.from_registers(sums, self.tau, self.seed)

    def _occurrences(self, chunk_hashes: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the registers that chunks fall into, each listed once, and how many chunks fall into each."""
        index = registers_of(hash_chunks(chunk_hashes, self.seed), self.n_prime)
        return np.unique(index, return_counts=True)


def folds(larger: int, smaller: int) -> bool:
    """Tell whether ``larger`` registers fold onto ``smaller``: the ratio of the sizes is 1 or another power of two."""
    if smaller < 1:
        return False
    factor, rest = divmod(larger, smaller)
    return rest == 0 and factor > 0 and factor & (factor - 1) == 0


def level_counts(sketches: Sequence[LCRS], tau: int) -> NDArray[np.int64]:
    """Count the registers at each level. The level is the number of sketches that are non-zero there, at most ``tau``.

    Sketches of different sizes fold to the size of the smallest one.

    Args:
        sketches: one per node, of one cluster.
        tau: the cap, 1 to 255. If ``tau`` is less than the number of sketches, the last entry counts the registers at
            level ``tau`` or above.

    Returns:
        int64 ``Z`` of shape ``[min(tau, len(sketches)) + 1]``, which sums to N'; ``[0]`` if there are no sketches.

    Raises:
        IncompatibleSketches: the seeds differ or the sizes do not fold.
    """
    if not sketches:
        return np.zeros(1, np.int64)
    if len({sketch.seed for sketch in sketches}) > 1:
        raise IncompatibleSketches("the registers of sketches of different seeds do not line up")
    n_prime = min(sketch.n_prime for sketch in sketches)
    levels = np.zeros(n_prime, np.uint16)
    for sketch in sketches:
        levels += sketch.fold(n_prime).registers != 0
    highest = min(tau, len(sketches))
    return np.bincount(np.minimum(levels, highest), minlength=highest + 1).astype(np.int64)
