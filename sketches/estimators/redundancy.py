"""Tells whether chunks have enough replicas, for one target and for several, and how many chunks have none."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketches.estimators.estimate import Z_95, Estimate, at_least
from sketches.estimators.spectrum import Spectrum
from sketches.registers import checked_registers

Z_ALARM = 2.326
"""Standard normal quantile of a one-sided 99 % bound: one false alarm in a hundred looks."""


def proven_below(level_counts: ArrayLike, nodes: int, target: int) -> int:
    """Count registers that prove a chunk below ``target`` replicas, for any placement and any load.

    All chunks of a register at level l lie on the same l nodes or fewer. Where every chunk should have at least
    ``target`` replicas, a register at levels 1 … ``target`` - 1 therefore has a chunk with too few replicas: there is
    no false alarm by construction. If 3 of 10^5 chunks in 10^6 registers are under-replicated, at least one of
    the 3 shows with probability .999: each of them shares its register with a better replicated chunk with probability
    ``1 - e^(-t)``, t being the load.

    The proof needs that this register is zero on exactly the nodes that hold none of its chunks. An *over-count*
    remains, for example, after a crash between a removal and its un-counting. An over-count forges an under-replicated
    chunk if the level of its register is less than ``target`` with the over-count and 0 without it: a chunk that is
    gone seems to have one replica. In the register of a chunk that really lacks replicas, the over-count seems to be
    one more node, and may hide the lack. An *under-count* remains, for example, after a listing that misses a replica.
    Because of an under-count, a replica that is there seems to be missing. Over-counts and under-counts of other
    registers change nothing.

    Args:
        level_counts: Z, integers ``[L + 1]``. If L is less than ``nodes``, the last entry counts the registers on L or
            more nodes.
        nodes: m, the nodes whose sketches were read.
        target: the smallest number of replicas that a chunk should have.
    """
    levels = np.asarray(level_counts, np.int64)
    known = levels if len(levels) > nodes else levels[:-1]
    return int(known[1:target].sum())


def below_targets(spectrum: Spectrum, targets: ArrayLike, z: float = Z_95) -> Estimate:
    """Estimate how many chunks have replicas, but fewer than they should.

    Under one common target the answer is ``spectrum.below(target)``. Under several targets, a replica missing from one
    chunk and a replica too many of another chunk can cancel, so the spectrum only gives a lower bound. Let F(l) chunks
    have at most l replicas, and F_target(l) chunks have a target of at most l. Only chunks with a target of at most l
    can have enough with l replicas or fewer. Therefore at least ``max_l (F(l) - F_target(l))`` chunks are below their
    targets (derived here; the one-sided distance of Kolmogorov and Smirnov). If all is well, only the levels with
    F_target(l) > 0 are noisy: the quantile is raised for the number of these levels (Bonferroni).

    Args:
        spectrum: with the largest target as its replication factor.
        targets: integers ``[T + 1]``: ``targets[k]`` chunks should have k replicas. Chunks that should have more
            replicas than there are nodes count as below target.
        z: standard normal quantile of the interval's ends, 1.96 for two-sided 95 %.

    Returns:
        The number with its interval. Under several targets, the estimate is a lower bound too, and there is no upper
        end.
    """
    wanted = np.asarray(targets, np.int64)
    levels = np.flatnonzero(wanted)
    if len(levels) == 0:
        return spectrum.below(spectrum.replication_factor, z)
    if len(levels) == 1:
        return spectrum.below(int(levels[0]), z)
    content = np.cumsum(wanted)[: levels[-1]]
    noisy = max(int(np.count_nonzero(content)), 1)
    normal = NormalDist()
    z = -normal.inv_cdf(normal.cdf(-z) / noisy)
    below = [spectrum.below(level + 1, z) for level in range(len(content))]
    lower = max(float(answer.lower_bound - fine) for answer, fine in zip(below, content, strict=True))
    excess = max(float(answer.estimate - fine) for answer, fine in zip(below, content, strict=True))
    return Estimate(max(excess, 0.0), max(lower, 0.0), None, spectrum.saturated)


def alarming(spectrum: Spectrum, targets: ArrayLike, expected: int) -> bool:
    """Tell whether more chunks are below their targets than there should be.

    Under one common target, the spectrum of a cluster without missing replicas never alarms. Under two targets, 1.1 %
    of the simulated clusters without missing replicas raised an alarm (4,500 runs). With half of 10^5 chunks at two and
    half at three replicas, in 10^6 registers, 95 % of the runs alarm if .35 % of the chunks lack a replica.

    Args:
        spectrum: with the largest target as its replication factor.
        targets: integers ``[T + 1]``: ``targets[k]`` chunks should have k replicas.
        expected: chunks that may be below their targets: those pinned by uploads in flight, and a tolerance.
    """
    return below_targets(spectrum, targets, Z_ALARM).lower_bound > expected


def lost_chunks(union: Estimate, chunks: int) -> Estimate:
    """Estimate how many chunks have no replica on any node: the chunks on record less the union.

    Args:
        union: distinct chunks on the nodes.
        chunks: chunks on record.

    Returns:
        The number with the union's interval, not below 0. If the union is saturated, only the upper end is known.
    """
    least = 0.0 if union.upper_bound is None else max(chunks - union.upper_bound, 0.0)
    most = max(chunks - union.lower_bound, 0.0)
    return Estimate(least if union.saturated else max(chunks - union.estimate, 0.0), least, most, union.saturated)


def average_replication(registers: NDArray[np.uint8], tau: int, chunks: int) -> Estimate:
    """Replicas per chunk on record, from trusted counts: the sum of the registers is exactly the number of replicas.

    Args:
        registers: uint8 ``[m, N']``, sketches of the online nodes.
        tau: the level at which the registers saturate.
        chunks: chunks on record.

    Returns:
        The exact ratio, 0 without chunks; only a lower bound if a register is saturated.

    Raises:
        ValueError: ``chunks`` is negative, or as by `checked_registers`.
    """
    registers = checked_registers(registers, tau)
    if chunks < 0:
        raise ValueError(f"there cannot be {chunks} chunks on record")
    ratio = int(registers.sum(dtype=np.int64)) / chunks if chunks else 0.0
    return at_least(ratio) if registers.size and registers.max() >= tau else Estimate(ratio, ratio, ratio, False)
