"""Measures the errors of the estimators over a grid of sizes, loads, nodes and placements."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.sketches.draws import Placed, Throws, occupancies, place, registers
from sketches.estimators import union_estimate
from sketches.estimators.confinement import spectrum_from_occupancy
from sketches.estimators.null import ExpectedOverlap, fitted_overlap, simulated_overlap, uniform_overlap
from sketches.estimators.overlap import pairwise_overlaps
from sketches.simulate.scenario import PLACEMENTS

Floats = NDArray[np.float64]

SHARES = {1: 0.02, 2: 0.08, 3: 0.9}
"""Number of replicas r → share of the chunks that have r replicas. All chunks should have three replicas."""

PAIRED = 4
"""The number of nodes that are drawn at random from a placement.

The overlap of each pair of these nodes gets a score.
"""


@dataclass(frozen=True)
class UnionError:
    """Errors and coverage of the estimated union of ``chunks`` chunks, exact up to rounding.

    ``sd`` is the predicted standard deviation in chunks; ``bias`` and ``rmse`` are in units of ``sd``.
    """

    n_prime: int
    chunks: int
    sd: float
    bias: float
    rmse: float
    coverage: float


def union_error(hit: Throws, chunks: int) -> UnionError:
    """Return bias, RMSE and coverage of the estimated union, from the exact distribution of the number of registers
    above zero.
    """
    n_prime, occupied = hit.n_prime, hit.occupied[chunks]
    probabilities = occupied.probabilities
    answers = [union_estimate(n_prime - occupied.first - at, n_prime) for at in range(len(probabilities))]
    errors = np.array([answer.estimate for answer in answers]) - chunks
    upper = [math.inf if answer.upper_bound is None else answer.upper_bound for answer in answers]
    covered = [one.lower_bound <= chunks <= most for one, most in zip(answers, upper, strict=True)]
    sd = math.sqrt(n_prime * (math.expm1(chunks / n_prime) - chunks / n_prime))
    bias, rmse = float(probabilities @ errors), math.sqrt(probabilities @ errors**2)
    return UnionError(n_prime, chunks, sd, bias / sd, rmse / sd, float(probabilities @ covered))


@dataclass(frozen=True)
class Cell:
    """One point of the grid: ``placements`` placements, each hashed ``hashings`` times."""

    n_prime: int
    load: float
    nodes: int
    placement: str
    placements: int
    hashings: int

    @property
    def runs(self) -> int:
        return self.placements * self.hashings

    @property
    def replicas(self) -> dict[int, int]:
        """Number of replicas r → number of chunks that have r replicas; the last number absorbs the rounding error."""
        chunks = round(self.load * self.n_prime)
        first, second = round(chunks * SHARES[1]), round(chunks * SHARES[2])
        return {1: first, 2: second, 3: chunks - first - second}


@dataclass(frozen=True)
class CellError:
    """The errors in the runs of a cell.

    Attributes:
        cell: the cell.
        bias: float64 ``[3]``, the bias for chunks with one, two, and three or more replicas, in predicted sd; NaN if
            there are no such chunks.
        rmse: float64 ``[3]``, the root mean square error in predicted sd; NaN where the sd is below one chunk, because
            there are too few collisions for a result.
        below_coverage: coverage of the interval for "below three replicas".
        visible: the number B of chunks below three replicas, times the share φ of registers in which they would show.
        beyond: the share of pairs of nodes whose overlap gets a score beyond 3 although no replica is missing.
        fewest: the number of chunks on the node that has the fewest.
    """

    cell: Cell
    bias: Floats
    rmse: Floats
    below_coverage: float
    visible: float
    beyond: float
    fewest: int


def try_cell(cell: Cell, hit: Throws, seed: int) -> CellError:
    """Run a cell. The numbers of chunks and of their replicas are fixed; placements and hashes are random."""
    rng = np.random.default_rng(seed)
    truth = np.array(list(cell.replicas.values()))
    placement, expected = PLACEMENTS[cell.placement](cell.nodes), healthy(cell, rng)
    errors, variances, covered, visible, beyond, fewest = [], [], [], [], [], int(truth.sum())
    for _ in range(cell.placements):
        placed = place(placement, cell.replicas, rng)
        fewest = min(fewest, int(placed.chunks_per_node.min()))
        for occupancy in occupancies(placed, len(truth) - 1, hit, cell.hashings, rng):
            spectrum = spectrum_from_occupancy(occupancy, len(truth))
            below = spectrum.below(len(truth))
            errors.append(spectrum.counts - truth)
            variances.append(np.diag(spectrum.covariance))
            upper = math.inf if below.upper_bound is None else below.upper_bound
            covered.append(below.lower_bound <= truth[:-1].sum() <= upper)
            visible.append(1 / (1 + spectrum.hidden[-1]))
        beyond.append(share_beyond(placed, expected(placed), hit, cell.hashings, rng))
    sd = np.sqrt(np.maximum(np.mean(variances, axis=0), 0.0))
    sd = np.where((truth > 0) & (sd > 0), sd, np.nan)
    bias = np.mean(errors, axis=0) / sd
    rmse = np.sqrt(np.mean(np.square(errors), axis=0)) / np.where(sd >= 1, sd, np.nan)
    shows = float(truth[:-1].sum() * np.mean(visible))
    return CellError(cell, bias, rmse, float(np.mean(covered)), shows, float(np.mean(beyond)), fewest)


def share_beyond(placed: Placed, null: ExpectedOverlap, hit: Throws, runs: int, rng: np.random.Generator) -> float:
    """Return the share of the pairs of `PAIRED` random nodes whose overlap has a score beyond 3."""
    nodes = np.sort(rng.permutation(placed.nodes)[:PAIRED])
    those, above = np.ix_(nodes, nodes), np.triu_indices(len(nodes), 1)
    of_nodes = ExpectedOverlap(null.mean[those], null.variance[those])
    seen = registers(placed, nodes, hit, runs, rng)
    return float(np.mean([np.abs(of_nodes.scores(pairwise_overlaps(one))[above]) > 3 for one in seen]))


def healthy(cell: Cell, rng: np.random.Generator) -> Callable[[Placed], ExpectedOverlap]:
    """Return a function that computes, for a placement without missing replicas, the overlaps that are expected."""
    if cell.placement == "weighted":
        return lambda placed: fitted_overlap(cell.replicas, placed.chunks_per_node)
    if cell.placement == "uniform":
        known = uniform_overlap(cell.replicas, cell.nodes)
    else:
        zoned = PLACEMENTS[cell.placement](cell.nodes)
        known = simulated_overlap(cell.replicas, lambda count: zoned.rank(count, rng))
    return lambda placed: known
