"""Draws figures of the runs. This is the only module that needs matplotlib."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sketches.simulate.trials import Trials

DPI = 90
LEAST_ERROR = 0.1
"""The smallest error, in chunks, that the figure of the accuracy shows."""


def draw(done: Sequence[Trials], folder: Path) -> None:
    """Write accuracy.png, coverage.png, routing.png and spectrum.png.

    Args:
        done: the runs of one cluster at one or several N'; spectrum.png shows the first of them.
        folder: the directory in which the figures are written; it is created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(done, key=lambda trials: trials.scenario.n_prime)
    figures: dict[str, Callable[[Axes], None]] = {
        "accuracy": lambda axes: _accuracy(axes, ordered),
        "coverage": lambda axes: _coverage(axes, ordered),
        "routing": lambda axes: _routing(axes, ordered),
        "spectrum": lambda axes: _spectrum(axes, done[0]),
    }
    for name, content in figures.items():
        figure = Figure(figsize=(7.5, 4.6), dpi=DPI, layout="constrained")
        content(figure.add_subplot())
        FigureCanvasAgg(figure).print_png(folder / f"{name}.png")  # type: ignore[no-untyped-call]


def _accuracy(axes: Axes, done: Sequence[Trials]) -> None:
    sizes = [trials.scenario.n_prime for trials in done]
    for number, name in enumerate(_names(done, estimated=True)):
        colour, size = f"C{number}", 10 if name.endswith("levels") else 6  # The large marker is a ring.
        rmse = [trials.answers[name].rmse for trials in done]
        axes.plot(sizes, rmse, "o", color=colour, label=name, markersize=size, fillstyle="none" if size > 6 else "full")
        axes.plot(sizes, [trials.answers[name].predicted_sd for trials in done], "-", color=colour, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="N', registers", ylabel="chunks")
    axes.set_ylim(bottom=LEAST_ERROR)
    _title(axes, done[0], "Root mean square error (dots) and predicted standard deviation (lines)")


def _coverage(axes: Axes, done: Sequence[Trials]) -> None:
    names = _names(done, estimated=False)
    for trials in done:
        coverage = [trials.answers[name].coverage for name in names]
        axes.plot(coverage, range(len(names)), "o", label=f"N' = {trials.scenario.n_prime}", alpha=0.8)
    axes.axvline(0.95, color="black", linewidth=1)
    spread = 1.96 * math.sqrt(0.95 * 0.05 / len(done[0].saturated))
    axes.axvspan(0.95 - spread, 0.95 + spread, color="black", alpha=0.08, label="95 %, and its noise")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="share of the 95 % intervals that hold the truth")
    _title(axes, done[0], "Coverage")


def _routing(axes: Axes, done: Sequence[Trials]) -> None:
    loads = [trials.scenario.chunks / trials.scenario.n_prime for trials in done]
    curves = {
        "first candidate holds the chunk": [np.mean(trials.first_hits) for trials in done],
        "its r holders are the first r candidates": [np.mean(trials.all_hits) for trials in done],
        "false positives": [np.mean(trials.false_positives) for trials in done],
    }
    for name, values in curves.items():
        axes.plot(loads, values, "o", label=name)
    predicted = [np.mean(trials.predicted_false_positives) for trials in done]
    axes.plot(loads, predicted, "-", color="C2", linewidth=1, label="predicted")
    axes.set(xscale="log", ylim=(0, 1.03), xlabel="chunks per register", ylabel="share")
    _title(axes, done[0], "Routing by the sketches alone")


def _spectrum(axes: Axes, trials: Trials) -> None:
    classes = [name for name in trials.answers if name.startswith("chunks with")]
    replicas = np.arange(1, len(classes) + 1)
    answers = [trials.answers[name] for name in classes]
    estimates, errors = [a.mean + a.bias for a in answers], [1.96 * a.rmse for a in answers]
    levels = np.arange(1, len(trials.levels))
    axes.bar(replicas - 0.27, [a.mean for a in answers], 0.25, label="chunks with so many replicas")
    axes.bar(replicas, estimates, 0.25, yerr=errors, capsize=3, label="estimated, ± 1.96 root mean square errors")
    axes.bar(levels + 0.27, trials.levels[1:], 0.25, label="registers at that level", color="C7")
    axes.set_xticks(levels)
    axes.set(xlabel="replicas, or level", ylabel="chunks, or registers")
    _title(axes, trials, f"Levels are not replicas: N' = {trials.scenario.n_prime}")


def _names(done: Sequence[Trials], *, estimated: bool) -> list[str]:
    """Return the names of the estimators that answered.

    If ``estimated``, leave out the estimators that do not estimate a number of chunks, and those that predict a
    standard deviation of 0 at some N'.
    """
    found = []
    for name, answers in done[0].answers.items():
        chunks = name == "union" or name.startswith(("fewer", "overlap"))
        if not estimated or (chunks and all(trials.answers[name].predicted_sd > 0 for trials in done)):
            found.append(name if answers.covered else "")
    return [name for name in found if name]


def _title(axes: Axes, trials: Trials, title: str) -> None:
    scenario = trials.scenario
    factors = ", ".join(str(factor) for factor in scenario.replication)
    axes.figure.suptitle(
        f"{title}\n{scenario.chunks} chunks, {scenario.nodes} nodes, {scenario.placement} placement, "
        f"replication factor {factors}, {scenario.degraded:.0%} with one replica lost",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    axes.figure.legend(fontsize=8, loc="outside lower center", ncols=3)
