"""Measures uploads with different numbers of ingest workers, and which resource is saturated."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service.installation import installed
from benchmarks.service.measuring import Figures, upload
from benchmarks.service.table import table
from benchmarks.service.workloads import MIB, WARM_UP, WORKLOADS, Workload, listed, samples

COUNTS = (1, 2, 4)
WORKLOADS_FOR_WORKERS = {"W1": WORKLOADS["W1"], "W2": WORKLOADS["W2"], "W2 by 8": Workload(8, 64, 4 * MIB)}
LEGEND = """Medians of uploads, each repeat on new installations; cores and disk in percent of the time,
clients and all.
"""


@dataclass(frozen=True)
class Workers:
    """The figures of every repeat, by workload and number of ingest workers."""

    workloads: Mapping[str, Workload]
    figures: dict[tuple[str, int], list[Figures]]

    def __str__(self) -> str:
        rows = []
        for (name, count), many in sorted(self.figures.items()):
            one = Figures.median(many)
            cores = ", ".join(f"{share:.0f}" for share in one.busy.cores)
            speeds = (one.mib_per_second, one.p50, one.cpu_per_gib)
            rows.append((name, str(count), *speeds, cores, one.busy.disk, one.busy.saturated()))
        heads = ("workload", "workers", "MiB/s", "p50 ms", "CPU s/GiB", "cores %", "disk %", "saturated")
        return f"{listed(self.workloads)}\n{LEGEND}\n{table(heads, rows)}"


def measure(folder: Path, workloads: Mapping[str, Workload], repeats: int, counts: Sequence[int] = COUNTS) -> Workers:
    """Measure every number of workers in turn, ``repeats`` times."""
    workers = Workers(workloads, {})
    for _ in range(repeats):
        for count in counts:
            with installed(folder, INGEST_WORKERS=str(count)) as installation:
                target = installation.target()
                for name, workload in {"warm-up": WARM_UP, **workloads}.items():
                    with samples(workload) as made:
                        figures = upload(target, workload, made, folder)
                    if name in workloads:
                        workers.figures.setdefault((name, count), []).append(figures)
                        print(".", end="", flush=True, file=sys.stderr)
    return workers
