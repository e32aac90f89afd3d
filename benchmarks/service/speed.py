"""Compares uploads and downloads with other servers and with the limits of the machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service.ceilings import HASHING, SENDING, ceilings, copies
from benchmarks.service.client import get_json
from benchmarks.service.installation import installed
from benchmarks.service.measuring import Figures, delete, download, median_of_known, upload
from benchmarks.service.table import Cell, ratio, table
from benchmarks.service.targets import OccStorage, Target
from benchmarks.service.workloads import WARM_UP, Workload, listed, samples

HEADS = (
    *("workload", "of", "MiB/s", "ops/s", "p50 ms", "p99 ms", "CPU s/GiB", "written", "API MiB", "worker MiB"),
    *("ours ÷ it", "p50", "p99", "CPU"),
)
LEGEND = """Medians; memory is that of the largest process of its program at its peak, CPU that of all processes of the
server, *written* what they wrote for each byte that was moved. *Ours ÷ it* compares MiB/s: above 1 we are faster; the
columns after it compare latencies and CPU: below 1 we take less.
"""


@dataclass(frozen=True)
class Speed:
    """The figures of every repeat, by workload, direction and server, and the ceilings of every repeat."""

    workloads: Mapping[str, Workload]
    settings: Mapping[str, int]
    figures: dict[tuple[str, str, str], list[Figures]]
    ceilings: list[dict[str, float]]

    def ceiling(self, name: str) -> float:
        return median_of_known(found[name] for found in self.ceilings) or 0.0

    def __str__(self) -> str:
        repeats = len(self.ceilings)
        nodes, factor, chunk = (self.settings[n] for n in ("num_nodes", "replication_factor", "chunk_size"))
        ours = f"{nodes} nodes, {factor} replicas, chunks of {chunk >> 10} KiB. Repeats, interleaved: {repeats}.\n"
        rows = [row for name, one in self.workloads.items() for way in one.directions for row in self._rows(name, way)]
        limits = [(name, self.ceiling(name)) for name in self.ceilings[0]]
        return "\n".join(
            [listed(self.workloads), ours, LEGEND, table(HEADS, rows), "", table(("ceiling", "MiB/s"), limits)]
        )

    def _rows(self, name: str, direction: str) -> Iterator[Sequence[Cell]]:
        """Yield the row of OCC Storage, the rows of the ceilings, and the rows of the other servers."""
        found = {
            target: Figures.median(many)
            for (workload, towards, target), many in self.figures.items()
            if (workload, towards) == (name, direction)
        }
        ours, *others = found.items()
        title = f"{name} {direction}"
        yield (title, *_figures(*ours), *[None] * 4)
        for limit, rate in self._limits(name, direction):
            yield (title, limit, rate, *[None] * 7, ratio(ours[1].mib_per_second, rate), *[None] * 3)
        for other in others:
            yield (title, *_figures(*other), *_ratios(ours[1], other[1]))

    def _limits(self, name: str, direction: str) -> list[tuple[str, float]]:
        if direction == "down":
            return [(limit, self.ceiling(limit)) for limit in (HASHING, SENDING)]
        medians = {limit: self.ceiling(limit) for limit in self.ceilings[0]}
        return [copies(medians, self.chunk(self.workloads[name]), self.settings["replication_factor"])]

    def chunk(self, workload: Workload) -> int:
        """Return the size of the chunks of a workload, in bytes."""
        return min(workload.size, self.settings["chunk_size"])


def measure(
    folder: Path, workloads: Mapping[str, Workload], repeats: int, others: Sequence[Target], base_url: str | None
) -> Speed:
    """Measure every workload on every server in turn, ``repeats`` times, each time with new bytes."""
    with _ours(folder, base_url) as ours:
        connection = ours.connect()
        speed = Speed(workloads, get_json(connection, "/status")["config"], {}, [])
        connection.close()
        kept = None if base_url else ours  # The system that this benchmark starts is removed with all its files.
        for _ in _round(WARM_UP, [ours, *others], kept, folder):
            pass
        for _ in range(repeats):
            speed.ceilings.append(ceilings(folder, {speed.chunk(workload) for workload in workloads.values()}))
            for name, workload in workloads.items():
                # Other servers get raw bodies in every workload, so a raw workload would only repeat another workload.
                targets = [ours] if workload.raw else [ours, *others]
                for direction, target, figures in _round(workload, targets, kept, folder):
                    speed.figures.setdefault((name, direction, target), []).append(figures)
                    print(".", end="", flush=True, file=sys.stderr)
    return speed


def _round(
    workload: Workload, targets: Sequence[Target], kept: Target | None, folder: Path
) -> Iterator[tuple[str, str, Figures]]:
    """Run one workload once on every server, and yield direction, server and figures.

    The files are deleted afterwards on every server except ``kept``.
    """
    with samples(workload) as made:
        for target in targets:
            try:
                yield "up", target.name, upload(target, workload, made, folder)
                if "down" in workload.directions:
                    yield "down", target.name, download(target, workload, made, folder)
            finally:
                if target is not kept:
                    delete(target, made)


@contextmanager
def _ours(folder: Path, base_url: str | None) -> Iterator[OccStorage]:
    folder.mkdir(parents=True, exist_ok=True)
    if base_url:
        yield OccStorage("ours", base_url)
    else:
        with installed(folder) as installation:
            yield installation.target()


def _figures(name: str, one: Figures) -> tuple[Cell, ...]:
    speeds = (one.mib_per_second, one.operations_per_second, one.p50, one.p99)
    return (name, *speeds, one.cpu_per_gib, one.written, one.peaks.get("api"), one.peaks.get("worker"))


def _ratios(ours: Figures, other: Figures) -> tuple[Cell, ...]:
    return (
        ratio(ours.mib_per_second, other.mib_per_second),
        ratio(ours.p50, other.p50),
        ratio(ours.p99, other.p99),
        ratio(ours.cpu_per_gib, other.cpu_per_gib),
    )
