"""Compares nodes of files with nodes of packs, and packs with and without compression."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service.installation import installed
from benchmarks.service.measuring import Figures, download, upload
from benchmarks.service.table import Cell, ratio, table
from benchmarks.service.workloads import KIB, MIB, WARM_UP, WORKLOADS, Workload, listed, samples

KINDS: Mapping[str, Mapping[str, str]] = {
    "files": {"NODE_VOLUMES": "file"},
    "packs": {"NODE_VOLUMES": "pack", "COMPRESSION": "off"},
    "packs, zstd": {"NODE_VOLUMES": "pack", "COMPRESSION": "zstd"},
}
"""Kind of nodes → the settings with which a system makes such nodes."""

WORKLOADS_FOR_VOLUMES = {
    **{name: WORKLOADS[name] for name in ("W1", "W2", "W3")},
    "W3 by 32": Workload(32, 400, 64 * KIB),
    "W1 words": Workload(1, 1, 256 * MIB, words=True),
    "W2 words": Workload(4, 64, 4 * MIB, words=True),
}
HEADS = ("workload", "nodes of", "MiB/s", "least", "most", "ops/s", "p99 ms", "CPU s/GiB", "written", "÷ files", "CPU")
LEGEND = """Medians of interleaved repeats, and the least and the most MiB/s; *written* is what the server wrote for
each byte that was moved. The last two columns divide by the figures of nodes of files: MiB/s, and processor time.
"""


@dataclass(frozen=True)
class Volumes:
    """The figures of every repeat, by workload, direction and kind of nodes."""

    workloads: Mapping[str, Workload]
    figures: dict[tuple[str, str, str], list[Figures]]

    def __str__(self) -> str:
        rows = [row for name, one in self.workloads.items() for way in one.directions for row in self._rows(name, way)]
        return f"{listed(self.workloads)}\n{LEGEND}\n{table(HEADS, rows)}"

    def _rows(self, name: str, direction: str) -> Iterator[Sequence[Cell]]:
        files = Figures.median(self.figures[name, direction, "files"])
        for kind in KINDS:
            many = self.figures[name, direction, kind]
            one, speeds = Figures.median(many), [figures.mib_per_second for figures in many]
            spread = (one.mib_per_second, min(speeds), max(speeds))
            ratios = (ratio(one.mib_per_second, files.mib_per_second), ratio(one.cpu_per_gib, files.cpu_per_gib))
            costs = (one.operations_per_second, one.p99, one.cpu_per_gib, one.written)
            yield (f"{name} {direction}", kind, *spread, *costs, *ratios)


def measure(folder: Path, workloads: Mapping[str, Workload], repeats: int) -> Volumes:
    """Run one system of each kind, and measure every workload on each of them in turn, ``repeats`` times."""
    volumes = Volumes(workloads, {})
    with ExitStack() as systems:
        targets = {
            kind: systems.enter_context(installed(folder, **settings)).target(kind) for kind, settings in KINDS.items()
        }
        for number in range(repeats + 1):
            for name, workload in workloads.items() if number else [("warm-up", WARM_UP)]:
                with samples(workload) as made:
                    for kind, target in targets.items():
                        found = volumes.figures if number else {}
                        found.setdefault((name, "up", kind), []).append(upload(target, workload, made, folder))
                        found.setdefault((name, "down", kind), []).append(download(target, workload, made, folder))
                        print(".", end="", flush=True, file=sys.stderr)
    return volumes
