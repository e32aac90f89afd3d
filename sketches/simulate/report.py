"""Reports the results of the runs, in words and columns."""

import math
from collections.abc import Sequence

import numpy as np

from sketches.estimators.membership import false_positive_rate
from sketches.simulate.trials import Trials
from sketches.wire import HEADER_SIZE

GROWTH_LOAD = 0.25
"""Chunks per register from which a cluster doubles its sketches."""

DETECTION = 0.95
"""The probability with which under-replicated chunks should be proved."""

ROUNDING = 1e-12
"""A smaller number is a rounding error of floating point, and is shown as 0."""

Row = tuple[str, ...]
COLUMNS: Row = ("quantity", "truth", "bias", "RMSE", "predicted sd", "RMSE/sd", "coverage", "only bounds")


def rows(trials: Trials) -> list[Row]:
    """Return the accuracy of every estimator, in one row each under `COLUMNS`."""
    found = []
    for name, answers in trials.answers.items():
        ratio = answers.rmse / answers.predicted_sd if answers.predicted_sd else math.nan
        numbers = (answers.mean, answers.bias, answers.rmse, answers.predicted_sd, ratio)
        bounds = 1 - len(answers.truth) / len(answers.covered)
        found.append((name, *map(_number, numbers), f"{answers.coverage:.1%}", f"{bounds:.0%}"))
    return found


def report(trials: Trials) -> str:
    """Return a table of the estimators, and lines for the results that are not estimates."""
    scenario, online = trials.scenario, trials.scenario.nodes - trials.scenario.offline
    each = HEADER_SIZE + scenario.n_prime
    lines = [
        f"N' = {scenario.n_prime}: {scenario.chunks / scenario.n_prime:.3g} chunks per register, "
        f"{each} bytes per node, {each * scenario.nodes} in all",
        "",
        *_aligned([COLUMNS, *rows(trials)]),
        "",
    ]
    for name, scores in trials.scores.items():
        if scores:
            spread = f"mean {np.mean(scores):+.2f}, sd {np.std(scores):.2f}"
            beyond = f"beyond 3: {np.mean(np.abs(scores) > 3):.2%} of {len(scores)}"
            lines.append(f"{f'scores ({name}):':<32}{spread}, {beyond}")
    hits, everyone = _share(trials.first_hits), _share(trials.all_hits)
    lines += [
        f"{'routing by the sketches alone:':<32}first candidate holds the chunk: {hits:.2%}; "
        f"its r holders are the first r: {everyone:.2%}",
        f"{'false positives:':<32}{np.mean(trials.false_positives):.3%} "
        f"(predicted {np.mean(trials.predicted_false_positives):.3%}), over {online} nodes",
        f"{'saturated registers:':<32}{np.mean(trials.saturated):.2e} of all",
    ]
    return "\n".join(lines)


def advice(trials: Trials) -> str:
    """Return a line that helps to pick N_PRIME for the number of chunks of the scenario."""
    scenario = trials.scenario
    grown, chunks = scenario.n_prime, scenario.chunks
    while chunks > GROWTH_LOAD * grown:
        grown *= 2
    replicas = float(scenario.targets.mean()) / scenario.nodes * chunks
    wrong = float(false_positive_rate(replicas, grown))
    proved = provable(chunks / grown)
    kept = "is enough" if grown == scenario.n_prime else f"grows by itself to {grown}, the smallest double that is"
    shown = "one under-replicated chunk is" if proved == 1 else f"{proved} under-replicated chunks are"
    return (
        f"N_PRIME = {scenario.n_prime} {kept}, for {chunks} chunks at a load of at most {GROWTH_LOAD}: "
        f"{(HEADER_SIZE + grown) / 1000:.3g} kB per node, {wrong:.1%} of looks at a node without the chunk in vain, "
        f"and, under one replication factor, {shown} proved with {DETECTION:.0%}."
    )


def provable(load: float) -> int:
    """The smallest number of under-replicated chunks of which at least one is proved with probability `DETECTION`.

    With probability ``e^-load``, a chunk shares its register with no other chunk. The register then proves that the
    chunk lacks a copy.
    """
    hidden = -math.expm1(-load)
    return max(math.ceil(math.log(1 - DETECTION) / math.log(hidden)), 1) if hidden > 0 else 1


def _share(hits: Sequence[bool]) -> float:
    return float(np.mean(hits)) if hits else math.nan


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value if abs(value) > ROUNDING else 0.0:.4g}"


def _aligned(table: Sequence[Row]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) if not at else cell.rjust(width) for at, (cell, width) in enumerate(line)).rstrip()
        for line in (list(zip(row, widths, strict=True)) for row in table)
    ]
