"""Runs every estimator on realisations of a scenario: how large are its errors, and do its intervals hold the truth?"""

import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sketches.estimators import (
    Estimate,
    Spectrum,
    below_targets,
    spectrum_from_levels,
    spectrum_from_registers,
    spectrum_from_sums,
)
from sketches.estimators.balance import node_balance
from sketches.estimators.drift import disagreement
from sketches.estimators.membership import candidates, false_positive_rate
from sketches.estimators.null import ExpectedOverlap
from sketches.estimators.occupancy import count_occupancy
from sketches.estimators.overlap import PairwiseOverlaps, pairwise_overlaps
from sketches.lcrs import LCRS
from sketches.simulate.scenario import Realisation, Scenario

LOOKS = 4096
"""The most chunks that one run routes, and the number of absent chunks that it looks for."""

PAIRS = 10
"""The most pairs of nodes that one run compares with the truth. Scores are computed for all pairs."""


@dataclass
class Answers:
    """The answers of one estimator.

    Attributes:
        truth, estimates, predicted: one entry for each answer that is more than a bound; the predicted standard
            deviation is NaN where the estimator states none.
        covered: for every answer, whether the truth is in its interval.
    """

    truth: list[float] = field(default_factory=list)
    estimates: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)

    def add(self, truth: float, answer: Estimate, variance: float = math.nan) -> None:
        """Compare ``answer`` with the truth; ``variance`` is the variance that the estimator claims."""
        self.covered.append(answer.lower_bound <= truth and (answer.upper_bound is None or truth <= answer.upper_bound))
        if answer.upper_bound is not None:
            self.truth.append(truth)
            self.estimates.append(answer.estimate)
            self.predicted.append(math.sqrt(max(variance, 0.0)))

    @property
    def bias(self) -> float:
        """Mean error."""
        return float(np.mean(np.subtract(self.estimates, self.truth))) if self.truth else math.nan

    @property
    def rmse(self) -> float:
        """Root mean square error."""
        return math.sqrt(np.mean(np.subtract(self.estimates, self.truth) ** 2)) if self.truth else math.nan

    @property
    def predicted_sd(self) -> float:
        """Root mean square of the predicted standard deviations."""
        return math.sqrt(np.mean(np.square(self.predicted))) if self.truth else math.nan

    @property
    def coverage(self) -> float:
        """Share of the intervals that hold the truth."""
        return float(np.mean(self.covered)) if self.covered else math.nan

    @property
    def mean(self) -> float:
        """Mean truth."""
        return float(np.mean(self.truth)) if self.truth else math.nan


@dataclass
class Trials:
    """All runs of one scenario.

    Attributes:
        scenario: the scenario that was run.
        answers: name of an estimator → its answers.
        scores: name of a score → standard scores: one for each pair of nodes, or for each sketch, of each run.
        levels: float64 ``[k + 1]``, mean level counts of the k nodes online.
        first_hits: for each chunk looked for that has a replica, whether the first candidate holds it.
        all_hits: for each of these chunks, whether its r holders are the first r candidates.
        false_positives, predicted_false_positives: share of absent chunks that a node seems to hold, one for each run.
        saturated: share of registers at tau, one for each run.
    """

    scenario: Scenario
    answers: defaultdict[str, Answers] = field(default_factory=lambda: defaultdict(Answers))
    scores: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    levels: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    first_hits: list[bool] = field(default_factory=list)
    all_hits: list[bool] = field(default_factory=list)
    false_positives: list[float] = field(default_factory=list)
    predicted_false_positives: list[float] = field(default_factory=list)
    saturated: list[float] = field(default_factory=list)


def run(scenario: Scenario, runs: int, seed: int) -> Trials:
    """Realise a scenario again and again, and ask every estimator each time."""
    rng = np.random.default_rng(seed)
    expected = scenario.expected_overlap(rng)
    trials = Trials(scenario, levels=np.zeros(scenario.nodes - scenario.offline + 1))
    for _ in range(runs):
        seen = scenario.realise(rng)
        _spectra(trials, seen)
        _overlaps(trials, seen, expected(seen), rng)
        _nodes(trials, seen)
        _routing(trials, seen, rng)
        trials.saturated.append(float(np.mean(seen.registers == scenario.tau)))
    trials.levels /= runs
    return trials


def _spectra(trials: Trials, seen: Realisation) -> None:
    """Record the union, the classes, the chunks below target, and the average replication."""
    scenario, factor = trials.scenario, trials.scenario.replication_factor
    levels = count_occupancy(seen.registers, 0).level_counts
    trials.levels += levels
    zeros = spectrum_from_registers(seen.registers, factor)
    sums = spectrum_from_sums(seen.registers, scenario.tau, factor)
    distinct, answers = int(np.count_nonzero(seen.replicas)), trials.answers
    load = distinct / scenario.n_prime
    answers["union"].add(distinct, zeros.union, scenario.n_prime * (math.expm1(load) - load))
    for replicas, answer in enumerate(zeros.classes, 1):
        last = replicas == zeros.resolution < len(seen.registers)
        fits = seen.replicas >= replicas if last else seen.replicas == replicas
        name = f"chunks with {replicas} {'or more ' if last else ''}replica{'s' if replicas > 1 or last else ''}"
        answers[name].add(int(fits.sum()), answer, float(zeros.covariance[replicas - 1, replicas - 1]))
    below = int(np.count_nonzero((seen.replicas > 0) & (seen.replicas < factor)))
    by = {"zeros": zeros, "levels": spectrum_from_levels(levels, len(seen.registers), factor), "sums": sums}
    for name, spectrum in by.items():
        answers[f"fewer than {factor}, by {name}"].add(below, spectrum.below(factor), _variance_below(spectrum, factor))
    if len(scenario.replication) > 1:
        short = int(np.count_nonzero((seen.replicas > 0) & (seen.replicas < scenario.targets)))
        answers["below their target, at least"].add(short, below_targets(zeros, np.bincount(scenario.targets)))
    average = float(np.minimum(seen.replicas, factor).sum() / distinct) if distinct else 0.0
    answers["average replication"].add(average, zeros.average)


def _variance_below(spectrum: Spectrum, target: int) -> float:
    which = slice(0, target - 1) if target <= spectrum.resolution else slice(None)
    return float(spectrum.covariance[which, which].sum())


def _overlaps(trials: Trials, seen: Realisation, expected: ExpectedOverlap, rng: np.random.Generator) -> None:
    """Record how many chunks pairs of nodes share, and how unlikely these numbers are."""
    pairs: PairwiseOverlaps = pairwise_overlaps(seen.registers)
    first, second = np.triu_indices(len(seen.registers), 1)
    trials.scores["null, pairs of nodes"].extend(expected.scores(pairs)[first, second].tolist())
    some = rng.choice(len(first), min(PAIRS, len(first)), replace=False)
    for a, b in zip(first[some].tolist(), second[some].tolist(), strict=True):
        both, either = int((seen.held[a] & seen.held[b]).sum()), int((seen.held[a] | seen.held[b]).sum())
        answer = pairs.pair(a, b)
        trials.answers["overlap of two nodes"].add(both, answer.intersection, answer.intersection_variance)
        trials.answers["Jaccard index"].add(both / either if either else 1.0, answer.jaccard, answer.jaccard_variance)


def _nodes(trials: Trials, seen: Realisation) -> None:
    """Record each node's share, and the score that tells whether its sketch contradicts itself."""
    held = seen.held.sum(axis=1)
    for node, answer in enumerate(node_balance(seen.registers, np.ones(len(held))).nodes):
        trials.answers["share of a node"].add(float(held[node] / max(held.sum(), 1)), answer.share)
    sketches = (LCRS.from_registers(row, trials.scenario.tau, 0) for row in seen.registers)
    trials.scores["drift, sketches"].extend(disagreement(sketch).score for sketch in sketches)


def _routing(trials: Trials, seen: Realisation, rng: np.random.Generator) -> None:
    """Record whether the sketches alone route readers to the right nodes, and how often absent chunks seem present."""
    scenario, nodes = trials.scenario, len(seen.registers)
    some = rng.choice(scenario.chunks, min(LOOKS, scenario.chunks), replace=False)
    some = some[seen.replicas[some] > 0]
    chunks_per_node = seen.held.sum(axis=1)
    values, prior = seen.registers[:, seen.register[some]].T, chunks_per_node / scenario.chunks
    order = candidates(values, chunks_per_node, scenario.n_prime, scenario.tau, prior, 0.0).order
    holds = np.take_along_axis(seen.held[:, some].T, order, axis=1)
    trials.first_hits.extend(holds[:, 0].tolist())
    first = np.arange(nodes) < seen.replicas[some, None]
    trials.all_hits.extend(np.all(holds | ~first, axis=1).tolist())
    absent = rng.integers(0, scenario.n_prime, LOOKS)
    trials.false_positives.append(float(np.mean(seen.registers[:, absent] > 0)))
    trials.predicted_false_positives.append(float(false_positive_rate(chunks_per_node, scenario.n_prime).mean()))
