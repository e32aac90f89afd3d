"""The spectrum: how many chunks have exactly one, two, … replicas, and what follows from that."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sketches.estimators.estimate import Z_95, Estimate, at_least, whole_chunks
from sketches.estimators.union import union_estimate

Floats = NDArray[np.float64]

MIN_ZERO_REGISTERS = 20
"""With fewer empty registers, the logarithm of a count is not nearly linear in the count: only bounds are answered."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The numbers of chunks with exactly l replicas, for l = 1 … R - 1, and with R or more.

    R is the replication factor asked for, or less where fewer replica numbers can be told apart. R is at most the
    number of nodes (the last class then has exactly that many replicas), and at most the cap of the level counts. R is
    also less than the replication factor if there are too many sets of nodes to compute.

    Attributes:
        nodes: m, the nodes whose sketches were read.
        replication_factor: RF as asked for.
        union: distinct chunks on these nodes.
        counts: float64 ``[R]``, unbiased: ``counts[l-1]`` chunks with exactly l replicas, the last with R or more; may
            be slightly negative. All 0 when saturated.
        covariance: float64 ``[R, R]``, of ``counts`` for a fixed set of chunks.
        hidden: float64 ``[R]``. A chunk of up to k replicas is visible if its register proves that the chunk has at
            most k. For each visible chunk, on average ``hidden[k]`` other chunks share a register with better
            replicated chunks.
            ``hidden[0]`` is for the union: a chunk is then visible if no other chunk is in its register.
        proven: int64 ``[R]``: registers at levels 1 … k. Each register at one of these levels proves a chunk of at most
            k replicas, if the register is counted right on every node (see `redundancy.proven_below`).
        saturated: fewer than `MIN_ZERO_REGISTERS` registers are empty; all answers but the union are only lower bounds.
    """

    nodes: int
    replication_factor: int
    union: Estimate
    counts: Floats
    covariance: Floats
    hidden: Floats
    proven: NDArray[np.int64]
    saturated: bool

    @property
    def resolution(self) -> int:
        """R: replica numbers from 1 to R - 1 are told apart."""
        return len(self.counts)

    @property
    def complete(self) -> bool:
        """True if chunks below the replication factor are told apart from chunks at it."""
        return self.resolution >= min(self.replication_factor, self.nodes)

    @cached_property
    def classes(self) -> tuple[Estimate, ...]:
        """The numbers of chunks with exactly 1, 2, …, R - 1 replicas, and with R or more, where R is ``resolution``.

        If R is the number of nodes, the last number is that of the chunks with exactly R replicas.

        The intervals are computed as in `below`, except for the last one, which is a normal interval.
        """
        return (*(self._exactly(replicas) for replicas in range(1, self.resolution)), self._top())

    def below(self, target: int, z: float = Z_95) -> Estimate:
        """Estimate how many chunks have replicas, but fewer than ``target``.

        The variance of the estimate ``B_hat`` grows with the true number B: it is the estimated variance V plus
        ``a (B - B_hat)``, with ``a = hidden[target - 1]``. As in Wilson's interval,
        ``(B_hat - B)^2 = z^2 (V + a (B - B_hat))`` is solved for B, which keeps the coverage where few chunks or no
        chunks are seen. The lower end is never below the number that registers prove.

        Args:
            target: replicas that a chunk should have. If ``target`` is above the number of nodes, every chunk has
                fewer. If ``target`` is above R and up to the number of nodes, only "at least those below R" is known.
            z: standard normal quantile of the interval's ends, 1.96 for two-sided 95 %.
        """
        if target <= 1:
            return Estimate(0.0, 0.0, 0.0, saturated=False)
        if target > self.resolution:
            return self.union if self.resolution >= self.nodes else at_least(self.below(self.resolution, z).lower_bound)
        which = np.arange(self.resolution) < target - 1
        return self._chunks(which, float(self.hidden[target - 1]), int(self.proven[target - 1]), z)

    @cached_property
    def average(self) -> Estimate:
        """Replicas per chunk, counting at most RF of each; 0 if there are no chunks.

        With ``c_l`` chunks of l replicas and their sum U, the average is ``(sum_l l c_l)/U``; its variance follows by
        the delta method. The ends of its interval come from an interval for ``D = sum_l (R - l) c_l``, the number of
        missing replicas. Both ends of D solve the same equation as in `below`. At the lower end of D, each chunk that
        lacks replicas lacks 1; at the upper end, each of them lacks ``R - 1``. A spectrum without a trace of missing
        replicas therefore answers RF, with a lower end below RF.
        """
        chunks = float(self.counts.sum())
        if self.saturated:
            return at_least(1.0)
        if chunks <= 0:
            return Estimate(0.0, 0.0, 0.0, saturated=False)
        most = self.resolution
        replicas = np.arange(1, most + 1)
        missing = float((most - replicas) @ self.counts)  # exactly 0 if none is missing, without a rounding error
        mean = most - missing / chunks
        gradient = replicas - mean
        variance = float(gradient @ self.covariance @ gradient)
        a = float(self.hidden[most - 1])
        fewest, _ = score_interval(missing, variance, a, Z_95)
        _, largest = score_interval(missing, variance, (most - 1) * a, Z_95)
        lower, middle, upper = np.clip([most - largest / chunks, mean, most - fewest / chunks], 1.0, most).tolist()
        lower, upper = min(lower, middle), max(middle, upper)  # rounding or clipping may move the mean past an end
        return Estimate(middle, lower, upper, saturated=False) if self.complete else at_least(lower)

    def _exactly(self, replicas: int) -> Estimate:
        which = np.arange(self.resolution) == replicas - 1
        return self._chunks(which, float(self.hidden[replicas]), int(self.proven[1]) if replicas == 1 else 0, Z_95)

    def _chunks(self, which: NDArray[np.bool_], hidden: float, proven: int, z: float) -> Estimate:
        """Estimate the number of chunks in all classes that ``which`` marks."""
        if self.saturated:
            return at_least(float(proven))
        estimate = float(self.counts[which].sum())
        variance = float(self.covariance[np.ix_(which, which)].sum())
        return whole_chunks(estimate, *score_interval(estimate, variance, hidden, z), proven)

    def _top(self) -> Estimate:
        if self.resolution == 1:
            return self.union
        if self.saturated:
            return at_least(0.0)
        estimate = float(self.counts[-1])
        half = Z_95 * math.sqrt(max(float(self.covariance[-1, -1]), 0.0))
        return whole_chunks(estimate, estimate - half, estimate + half, 0)


def score_interval(estimate: float, variance: float, slope: float, z: float) -> tuple[float, float]:
    """Solve ``(estimate - x)^2 = z^2 (variance + slope (x - estimate))``: an interval whose variance grows with x."""
    middle, half = estimate + z**2 * slope / 2, z * math.sqrt(max(variance, 0.0) + (z * slope / 2) ** 2)
    return max(middle - half, 0.0), middle + half


def resolvable(replication_factor: int, levels: int) -> int:
    """Return R, the number of classes, if numbers of replicas up to ``levels`` can be told apart.

    Raises:
        ValueError: RF is less than 1.
    """
    if replication_factor < 1:
        raise ValueError(f"a replication factor is at least 1, not {replication_factor}")
    return max(min(replication_factor, levels), 1)


def saturated_spectrum(levels: NDArray[np.int64], nodes: int, replication_factor: int, resolution: int) -> Spectrum:
    """Return the spectrum for sketches with hardly any empty register: only what occupied registers prove."""
    proven = proven_by_levels(levels, resolution)
    nothing = np.zeros(resolution)
    union = union_estimate(int(levels[0]), int(levels.sum()))
    covariance = np.zeros((resolution, resolution))
    return Spectrum(nodes, replication_factor, union, nothing, covariance, nothing, proven, saturated=True)


def too_full(levels: NDArray[np.int64]) -> bool:
    """True if so few registers are empty that only bounds are known. Sketches without any chunk are never too full."""
    return bool(levels[0] < MIN_ZERO_REGISTERS and levels[1:].any())


def proven_by_levels(levels: NDArray[np.int64], resolution: int) -> NDArray[np.int64]:
    """Registers at levels 1 … k for k = 0 … R - 1: each proves a chunk of at most k replicas."""
    return np.append(0, np.cumsum(levels[1:resolution]))
