"""How far off the estimators are, over a grid of sizes, loads, nodes and placements."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sketches.estimators import spectrum_from_registers, union_estimate
from sketches.estimators.null import ExpectedOverlap, fitted_overlap, simulated_overlap, uniform_overlap
from sketches.estimators.overlap import pairwise_overlaps
from sketches.simulate.placement import mixture, sketch, zoned
from sketches.simulate.scenario import PLACEMENTS

Floats = NDArray[np.float64]

SHARES = {1: 0.02, 2: 0.08, 3: 0.9}
"""Replicas → share of the chunks that have so many; all of them should have three."""

NEGLIGIBLE = 1e-25
"""Probability under which the ends of a distribution are cut off."""


@dataclass(frozen=True)
class UnionError:
    """Moments and coverage of the union of n chunks, exact up to rounding; error and bias in predicted sd."""

    n_prime: int
    chunks: int
    sd: float
    bias: float
    rmse: float
    coverage: float


def union_errors(n_prime: int, loads: Sequence[float]) -> list[UnionError]:
    """The union's error at several loads, from the exact distribution of the occupied registers."""
    found = []
    for chunks, first, probabilities in occupied(n_prime, [round(load * n_prime) for load in loads]):
        answers = [union_estimate(n_prime - first - at, n_prime) for at in range(len(probabilities))]
        errors = np.array([answer.estimate for answer in answers]) - chunks
        upper = [math.inf if answer.upper_bound is None else answer.upper_bound for answer in answers]
        covered = [one.lower_bound <= chunks <= most for one, most in zip(answers, upper, strict=True)]
        sd = math.sqrt(n_prime * (math.expm1(chunks / n_prime) - chunks / n_prime))
        bias, rmse = float(probabilities @ errors), math.sqrt(probabilities @ errors**2)
        found.append(UnionError(n_prime, chunks, sd, bias / sd, rmse / sd, float(probabilities @ covered)))
    return found


def occupied(n_prime: int, stops: Sequence[int]) -> Iterator[tuple[int, int, Floats]]:
    """The distribution of how many registers n chunks occupy, chunk by chunk: a new one with (N' - u)/N'.

    Yields:
        For every n in ``stops``, ascending: n, the fewest occupied registers, and the probabilities from there on.
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
        yield stop, first, probabilities / probabilities.sum()


@dataclass(frozen=True)
class Cell:
    """One point of the grid: so many placements, each hashed so many times."""

    n_prime: int
    load: float
    nodes: int
    placement: str
    placements: int
    hashings: int

    @property
    def runs(self) -> int:
        return self.placements * self.hashings


@dataclass(frozen=True)
class CellError:
    """What the runs of a cell came to.

    Attributes:
        cell: which.
        bias: float64 ``[3]``, of chunks with one, two, and three or more replicas, in predicted sd; NaN without any.
        rmse: float64 ``[3]``, likewise; NaN where the sd is below one chunk: too few collisions to tell.
        below_coverage: of "below three replicas".
        visible: chunks below three replicas times the share of registers that would show one, B φ.
        beyond: share of the healthy pairs beyond a score of 3.
        fewest: chunks on the node with the fewest.
    """

    cell: Cell
    bias: Floats
    rmse: Floats
    below_coverage: float
    visible: float
    beyond: float
    fewest: int


def try_cell(cell: Cell, seed: int) -> CellError:
    """Run a cell. The chunks are fixed, as are their replicas; placements and hashes are random."""
    rng = np.random.default_rng(seed)
    replicas = mixture(round(cell.load * cell.n_prime), SHARES)
    truth = np.bincount(replicas, minlength=4)[1:4]
    above, expected = np.triu_indices(cell.nodes, 1), healthy(cell, truth, rng)
    errors, variances, covered, visible, beyond, fewest = [], [], [], [], [], len(replicas)
    for _ in range(cell.placements):
        held = PLACEMENTS[cell.placement](cell.nodes).hold(replicas, rng)
        null = expected(held)
        fewest = min(fewest, int(held.sum(axis=1).min()))
        for _ in range(cell.hashings):
            registers = sketch(held, cell.n_prime, rng)
            spectrum = spectrum_from_registers(registers, 3)
            below = spectrum.below(3)
            errors.append(spectrum.counts - truth)
            variances.append(np.diag(spectrum.covariance))
            upper = math.inf if below.upper_bound is None else below.upper_bound
            covered.append(below.lower_bound <= truth[:2].sum() <= upper)
            visible.append(1 / (1 + spectrum.hidden[2]))
            beyond.append(np.mean(np.abs(null.scores(pairwise_overlaps(registers))[above]) > 3))
    sd = np.sqrt(np.maximum(np.mean(variances, axis=0), 0.0))
    sd = np.where((truth > 0) & (sd > 0), sd, np.nan)
    bias = np.mean(errors, axis=0) / sd
    rmse = np.sqrt(np.mean(np.square(errors), axis=0)) / np.where(sd >= 1, sd, np.nan)
    shows = float(truth[:2].sum() * np.mean(visible))
    return CellError(cell, bias, rmse, float(np.mean(covered)), shows, float(np.mean(beyond)), fewest)


def healthy(
    cell: Cell, chunks: NDArray[np.int64], rng: np.random.Generator
) -> Callable[[NDArray[np.bool_]], ExpectedOverlap]:
    """The null for the overlaps of a placement as it should be; ``chunks`` of one, two and three replicas."""
    replicas = dict(zip(SHARES, chunks.tolist(), strict=True))
    if cell.placement == "weighted":
        return lambda held: fitted_overlap(replicas, held.sum(axis=1))
    if cell.placement == "uniform":
        known = uniform_overlap(replicas, cell.nodes)
    else:
        known = simulated_overlap(replicas, lambda count: zoned(cell.nodes).rank(count, rng))
    return lambda held: known
