"""Measures how accurate and how fast the sketches are on this machine: ``make bench-sketches``.

    python -m benchmarks.sketches [--quick] [--processes P]

All random numbers are seeded, so the accuracy is the same on every machine and for every number of processes. The
tables show the targets next to the measurements. The speed is measured on the Redis server that REDIS_URL names.
Without REDIS_URL, the benchmark starts a server of its own.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.sketches import times
from benchmarks.sketches.accuracy import PAIRED, Cell, CellError, UnionError, try_cell, union_error
from benchmarks.sketches.detection import Lookups, lookups, proofs, shifts
from benchmarks.sketches.draws import throws

LOADS = (0.01, 0.1, 0.25, 1, 3)
NODES = (3, 5, 20)
PLACEMENTS = ("uniform", "weighted", "zoned")
SIZES, QUICK_SIZES = (10**3, 10**4, 10**5, 10**6), (10**3, 10**4)
RUNS, QUICK_RUNS = (100, 40), (3, 40)
"""The number of placements of each cell of the grid, and the number of times that each placement is hashed."""

VISIBLE = 50
"""If registers would show at least this many chunks below target, the interval for the number of chunks below target
should contain the true number in 93 to 97 % of the runs.
"""

FEW = 30
"""If a node of a placement has fewer chunks than this, no target is set for the overlap scores of that placement."""

UNION = """## Union

Exact: from the distribution of the occupied registers, on which alone it depends, for any nodes and any placement.
Targets: RMSE within 5 % of the predicted sd and |bias| < .1 sd from 20 chunks on; coverage 93 to 97 % where the sd is 5
or more, at least 95 % below.
"""

SPECTRUM = f"""
## Spectrum, chunks below target, and healthy pairs

Simulated, at all loads above and with {", ".join(map(str, NODES))} nodes in each row, each of these cells as often as
stated; 2 % of the chunks have one, 8 % two and 90 % three replicas. What registers hold is drawn exactly, but not chunk
by chunk. Bias (± the standard error of one) and RMSE, where it is a chunk or more, are in predicted sd, of the three
classes of every cell. Coverage is that of "below three replicas": where {VISIBLE} or more of them would show, and where
fewer do. Scores are of the pairs of up to {PAIRED} nodes, drawn anew for each placement, with {FEW} chunks or more on
every node. Targets: |bias| < .1; coverage 93 to 97 %, and at least 93 %; beyond 3 less than 1 %.
"""

LOOKUPS = """
## Lookups, N' = 100,000, TAU = 10

Held: after counting, and the rest after un-counting half. Targets: no false negative in 10,000,000, false positives
within 1 % (absolute) of 1 - (1 - 1/N')^n.
"""

T = TypeVar("T")


def main() -> int:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="N' up to 10,000 and fewer runs: within a minute")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    begun = time.monotonic()
    # Times are measured first, while nothing else runs.
    took, name = measure_times(10 if options.quick else 100)
    with ProcessPoolExecutor(options.processes) as pool:
        print_accuracy(pool, *((QUICK_SIZES, QUICK_RUNS) if options.quick else (SIZES, RUNS)))
        print_detection(pool, options.quick)
        print_lookups(pool, 1 if options.quick else 16)
    print("\n## Times\n")
    print_table(("what", "median", "largest", "target"), [(t.what, t.median, t.worst, t.target) for t in took])
    print(f"\n{surroundings(options.processes, name)}; {time.monotonic() - begun:.0f} s in all.")
    return 0


def measure_times(repeat: int) -> tuple[list[times.Took], str]:
    """Return all times, and the name of the server that was measured."""
    with times.server() as client:
        took = [one for n_prime in (10**4, 10**6, 10**7) for one in times.with_server(client, n_prime, repeat)]
        return took + times.by_itself(repeat), times.name_of(client)


def print_accuracy(pool: ProcessPoolExecutor, sizes: Sequence[int], runs: tuple[int, int]) -> None:
    # The largest size takes longest: it is started first and waited for last.
    hits = [pool.submit(throws, n_prime, [round(load * n_prime) for load in LOADS]) for n_prime in reversed(sizes)]
    unions: list[UnionError] = []
    tried: list[Future[CellError]] = []
    for n_prime, future in zip(sizes, reversed(hits), strict=True):
        hit = future.result()
        unions += [union_error(hit, round(load * n_prime)) for load in LOADS]
        for load, nodes, placement in product(LOADS, NODES, PLACEMENTS):
            cell = Cell(n_prime, load, nodes, placement, *runs)
            tried.append(pool.submit(try_cell, cell, hit, len(tried)))
    print_unions(unions)
    print_cells(progress(tried))


def print_unions(unions: Sequence[UnionError]) -> None:
    print(UNION)
    heads = ("N'", "chunks per register", "chunks", "sd", "bias/sd", "RMSE/sd", "coverage")
    body = [
        (
            *(f"{u.n_prime:,}", f"{u.chunks / u.n_prime:g}", f"{u.chunks:,}", f"{u.sd:.3g}"),
            *(f"{u.bias:+.4f}", f"{u.rmse:.4f}", f"{u.coverage:.2%}"),
        )
        for u in unions
    ]
    print_table(heads, body)


def print_cells(errors: Sequence[CellError]) -> None:
    print(SPECTRUM)
    heads = (
        *("N'", "placement", "cells × runs", "largest bias ±", "mean bias ±", "RMSE", "coverage", "pooled"),
        *("fewer show: lowest", "pooled", "beyond 3: pooled", "worst cell"),
    )
    groups = sorted({(e.cell.n_prime, PLACEMENTS.index(e.cell.placement)) for e in errors})
    body = [
        cell_row([e for e in errors if (e.cell.n_prime, e.cell.placement) == (n_prime, PLACEMENTS[placement])])
        for n_prime, placement in groups
    ]
    print_table(heads, body)


def cell_row(errors: Sequence[CellError]) -> tuple[str, ...]:
    cell = errors[0].cell
    bias, rmse = np.abs([e.bias for e in errors]), np.array([e.rmse for e in errors])
    show = [e.below_coverage for e in errors if e.visible >= VISIBLE]
    hide = [e.below_coverage for e in errors if e.visible < VISIBLE]
    beyond = [e.beyond for e in errors if e.fewest >= FEW]
    return (
        *(f"{cell.n_prime:,}", cell.placement, f"{len(errors)} × {cell.runs:,}"),
        f"{np.nanmax(bias):.3f} ± {1 / np.sqrt(cell.runs):.3f}",
        *(f"{np.nanmean(bias):.3f}", f"{np.nanmin(rmse):.2f} to {np.nanmax(rmse):.2f}"),
        *(f"{min(show):.1%} to {max(show):.1%}" if show else "", f"{np.mean(show):.2%}" if show else ""),
        *(f"{min(hide):.1%}" if hide else "", f"{np.mean(hide):.2%}" if hide else ""),
        *(f"{np.mean(beyond):.2%}" if beyond else "", f"{max(beyond):.2%}" if beyond else ""),
    )


def print_detection(pool: ProcessPoolExecutor, quick: bool) -> None:
    size, chunks, (part, parts) = 10**6, 10**5, (20, 1) if quick else (50, 10)
    found = [pool.submit(proofs, size, chunks, 3, part, seed) for seed in range(2 * parts)]
    clean = [pool.submit(proofs, 10**4, 10**3, 0, 1000, 100 + seed) for seed in range(parts)]
    moved = [pool.submit(shifts, size, chunks, 400, part, 200 + seed) for seed in range(parts)]
    still = [pool.submit(shifts, size, chunks, 0, part, 300 + seed) for seed in range(2 * parts)]
    three, none, seen, false = (progress(futures) for futures in (found, clean, moved, still))
    print(f"\n## Detection, 5 nodes, weighted placement, {chunks:,} chunks in {size:,} registers\n")
    body = [
        ("three chunks below a common target: proved", share(three, part), "≥ 99 %"),
        ("none, of 1,000 in 10,000 registers (impossible by construction): proved", share(none, 1000), "0"),
        ("half at two, half at three, 400 of these lack one: seen", share(seen, part), "≥ 95 %"),
        ("none of these lacks one: false alarms", share(false, part), "1 %"),
    ]
    print_table(("what", "measured", "target"), body)


def print_lookups(pool: ProcessPoolExecutor, repeat: int) -> None:
    every = progress([pool.submit(lookups, 10**5, 10, LOADS, seed) for seed in range(repeat)])
    print(LOOKUPS)
    body = [lookup_row([found[at] for found in every]) for at in range(len(LOADS))]
    held, denied = (sum(getattr(one, name) for found in every for one in found) for name in ("held", "denied"))
    body.append(("all", f"{held:,}", str(denied), "", "", ""))
    print_table(("chunks per register", "held", "false negatives", "absent", "false positives", "predicted"), body)


def lookup_row(found: Sequence[Lookups]) -> tuple[str, ...]:
    held, denied, absent, believed = (
        sum(getattr(one, name) for one in found) for name in ("held", "denied", "absent", "believed")
    )
    rates = (f"{believed / absent:.3%}", f"{found[0].predicted:.3%}")
    return (f"{found[0].load:g}", f"{held:,}", str(denied), f"{absent:,}", *rates)


def share(hits: Sequence[int], part: int) -> str:
    return f"{sum(hits) / (len(hits) * part):.2%} of {len(hits) * part:,} runs"


def progress(futures: Sequence[Future[T]]) -> list[T]:
    """Return the results, and print a dot for each as it arrives."""
    results = []
    for future in futures:
        results.append(future.result())
        print(".", end="", flush=True, file=sys.stderr)
    print("", file=sys.stderr)
    return results


def print_table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in body:
        print(f"| {' | '.join(row)} |")


def surroundings(processes: int, server: str) -> str:
    """Describe the machine and the versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    machine = f"{os.cpu_count()} cores ({models[0] if models else platform.machine()})"
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, {server}"
    return f"On {machine}, {platform.system()} {platform.release().split('-')[0]}, {versions}; {processes} processes"


if __name__ == "__main__":
    sys.exit(main())
