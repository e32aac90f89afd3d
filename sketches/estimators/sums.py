"""The spectrum from register sums: sharper than from zeros alone, where the counts are trusted.

The sum T of a register over all nodes is compound Poisson: each chunk of that register adds its number of replicas, on
whichever nodes they lie. With ``lambda_l`` chunks of l replicas per register, Panjer's recursion (1981) gives the
probability ``P_k`` that T is k:

    ``P_0 = exp(-sum_l lambda_l)``,  ``k P_k = sum_l l lambda_l P_(k-l)``,

``H_k`` registers have the sum k. The ``lambda_l`` of the greatest likelihood are found by expectation-maximisation
(Dempster, Laird and Rubin, 1977), ``lambda_l <- lambda_l/N' sum_k H_k P_(k-l)/P_k``, then by Fisher scoring with
``dP_k/dlambda_l = P_(k-l) - P_k``. All sums from TAU on are one cell; in a sum below TAU, no register is saturated. The
covariance of the numbers c of chunks is the inverse information less ``diag(c)``, because these numbers are fixed and
not Poisson.

A count left over after a crash looks like a chunk of one replica. The spectrum from zeros hardly changes by one count
too many, so a difference between the two spectra reveals such a count.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sketches.estimators.estimate import Z_95, whole_chunks
from sketches.estimators.occupancy import count_occupancy
from sketches.estimators.spectrum import (
    Floats,
    Spectrum,
    proven_by_levels,
    resolvable,
    saturated_spectrum,
    too_full,
)
from sketches.registers import checked_registers

EM_STEPS = 15
SCORING_STEPS = 30
SETTLED = 1e-4
"""Scoring ends when no class moves by more than this many chunks."""

ABSENT = 1e-2
"""A class of fewer chunks is taken as empty: it has no variance, and only expectation-maximisation changes it."""

NEGLIGIBLE = 1e-12
"""A cell with a smaller probability differs from 0 only by rounding."""

SHRINKAGE = 0.1
"""A scoring step leaves at least this part of a class: without it, sums that occur would have the probability 0."""


def spectrum_from_sums(
    registers: NDArray[np.uint8], tau: int, replication_factor: int, most_replicas: int | None = None
) -> Spectrum:
    """Estimate the spectrum from the sums of registers over m nodes, wherever the replicas were placed.

    Args:
        registers: uint8 ``[m, N']``, sketches of the *online* nodes, of one seed and one size; m may be 0.
        tau: the level at which these registers saturate. Replica numbers from tau on are not told apart.
        replication_factor: RF, at least 1.
        most_replicas: the largest number of replicas that any chunk has, such as RF + 1 while chunks are moved; RF if
            not given. If ``most_replicas`` is one too large, the other classes are ten times noisier. If
            ``most_replicas`` is one too small, a chunk of r + s replicas looks like a chunk of r replicas and a chunk
            of s replicas.

    Returns:
        The spectrum, of at most ``tau`` classes; saturated where fewer than 20 registers are empty. While sums rarely
        reach ``tau``, errors of "below three" are 10 to 60 times smaller than by `spectrum_from_registers`. No class is
        negative. Where a class is really empty, its estimate is therefore too high, by up to .6 of these small standard
        deviations.

    Raises:
        ValueError: as by `checked_registers`, or ``tau`` or RF is less than 1.
    """
    registers = checked_registers(registers, tau)
    if tau < 1:
        raise ValueError(f"registers saturated at {tau} have no sums")
    nodes = len(registers)
    resolution = resolvable(replication_factor, min(nodes, tau))
    largest = resolvable(max(most_replicas or 0, replication_factor), min(nodes, tau))
    levels = count_occupancy(registers, 0).level_counts
    if too_full(levels):
        return saturated_spectrum(levels, nodes, replication_factor, resolution)
    sums = np.minimum(registers.sum(axis=0, dtype=np.uint32), tau)
    histogram = np.bincount(sums, minlength=min(int(sums.max()) + 1, tau) + 1)
    fit = _maximise(histogram, largest)
    gather = np.minimum(np.arange(len(fit.counts)), resolution - 1) == np.arange(resolution)[:, None]
    counts, covariance = gather @ fit.counts, gather @ fit.covariance @ gather.T
    total, sd = float(counts.sum()), math.sqrt(max(float(covariance.sum()), 0.0))
    union = whole_chunks(total, total - Z_95 * sd, total + Z_95 * sd, int(levels[1:].sum()))
    hidden = fit.hidden[:resolution] if len(histogram) > tau else np.zeros(resolution)
    proven = proven_by_levels(levels, resolution)
    return Spectrum(nodes, replication_factor, union, counts, covariance, hidden, proven, saturated=False)


@dataclass(frozen=True, eq=False)
class _Fit:
    """The maximum of the likelihood.

    Attributes:
        counts: float64 ``[L]``, chunks of 1 … L replicas.
        covariance: float64 ``[L, L]``, for a fixed set of chunks.
        hidden: float64 ``[L]``. For each chunk of k replicas whose register is not in the last cell of the histogram,
            there are on average ``hidden[k]`` such chunks whose register is in the last cell.
    """

    counts: Floats
    covariance: Floats
    hidden: Floats


def _maximise(histogram: NDArray[np.int64], classes: int) -> _Fit:
    """Fit the numbers of chunks of 1 … ``classes`` replicas to ``histogram``, int64 ``[K + 1]``.

    The cells of the histogram have the registers with the sums 0 … K - 1; the last cell has those with the sum K or
    more.
    """
    n_prime = int(histogram.sum())
    counts = np.full(classes, -n_prime * math.log(histogram[0] / n_prime) / classes)
    for step in range(EM_STEPS + SCORING_STEPS):
        probabilities, shifted = _distribution(counts / n_prime, len(histogram))
        ratio = np.divide(histogram, probabilities, out=np.zeros(len(histogram)), where=histogram > 0)
        growth = shifted @ ratio / n_prime
        before, counts = counts, counts * growth
        if step < EM_STEPS:
            continue
        present, variance = _inverse_information(before, probabilities, shifted)
        scored = before[present] + n_prime * variance @ (growth[present] - 1)
        counts[present] = np.maximum(scored, SHRINKAGE * before[present])
        if np.abs(counts - before).max() < SETTLED:
            break
    counts[counts <= ABSENT] = 0
    probabilities, shifted = _distribution(counts / n_prime, len(histogram))
    present, variance = _inverse_information(counts, probabilities, shifted)
    covariance = np.zeros((classes, classes))
    covariance[np.ix_(present, present)] = n_prime * variance - np.diag(counts[present])
    below = np.cumsum(probabilities)[np.maximum(len(histogram) - 2 - np.arange(classes), 0)]
    return _Fit(counts, covariance, 1 / below - 1)


def _distribution(rates: Floats, cells: int) -> tuple[Floats, Floats]:
    """The probabilities of the sums of a register over all nodes, without and with one more chunk of l replicas.

    Args:
        rates: float64 ``[L]``, chunks of l replicas per register.
        cells: K + 1.

    Returns:
        float64 ``[K + 1]`` and ``[L, K + 1]``; the last cell is K or more.
    """
    classes = np.arange(1, len(rates) + 1)
    probabilities = np.zeros(cells)
    probabilities[0] = math.exp(-rates.sum())
    reversed_weights = (classes * rates)[::-1]
    for k in range(1, cells - 1):
        start = max(k - len(rates), 0)
        probabilities[k] = reversed_weights[start - k :] @ probabilities[start:k] / k
    reached = np.maximum(1 - np.append(0.0, np.cumsum(probabilities[:-1])), NEGLIGIBLE)
    probabilities[-1] = reached[-1]
    padded = np.append(np.zeros(len(rates)), probabilities)
    shifted = padded[len(rates) + np.arange(cells) - classes[:, None]]
    shifted[:, -1] = reached[np.maximum(cells - 1 - classes, 0)]
    return probabilities, shifted


def _inverse_information(counts: Floats, probabilities: Floats, shifted: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Return the classes that are present, and the inverse of the information of one register about their rates."""
    present = np.flatnonzero(counts > ABSENT)
    cells = probabilities > NEGLIGIBLE
    slopes = shifted[np.ix_(present, cells)] - probabilities[cells]
    inverse = np.linalg.pinv(slopes / probabilities[cells] @ slopes.T, hermitian=True)
    return present, inverse.astype(np.float64)
