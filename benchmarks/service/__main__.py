"""Measures how fast the service is and what it uses, on this machine: ``make bench``.

    python -m benchmarks.service [--part speed|volumes|workers|memory]... [--repeat N] [--workload W1]... [--quick]
        [--beside webdav=URL[,PIDFILE]]... [--beside swift=URL[,PIDFILE]]... [--memory-gib N] [--json PATH]

The part "speed" compares uploads and downloads of files of three sizes with other servers and with the limits of the
machine. The part "volumes" compares nodes of files with nodes of packs, with and without compression, and needs 12 GiB
of disk. The part "workers" measures uploads with 1, 2 and 4 ingest workers, and which resource is saturated. The part
"memory" measures the peaks of memory for a small and for a large file. The large file needs disk space of more than
four times its size. Without --part, all parts but "volumes" run.

Systems are started on empty directories, with the settings of the environment. Client and servers share the machine's
cores. No two chunks are equal, so nothing can be deduplicated. Disks are synced between the phases. Files are made in
memory before the clock starts, and every body is compared by SHA-256 after the clock has stopped; the part "memory"
makes and compares bodies while they are sent. With BASE_URL or --base-url, speed is measured on a service that runs
already, and the benchmark deletes the files that it uploaded. After a failure, the exit status is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.service import memory, speed, volumes, workers
from benchmarks.service.client import BenchError
from benchmarks.service.machine import describe
from benchmarks.service.targets import named
from benchmarks.service.workloads import GIB, MIB, WORKLOADS, Workload
from occsite.launch.programs import PROJECT

Part = speed.Speed | volumes.Volumes | workers.Workers | memory.Memory


def main() -> int:
    """Measure, and print the results."""
    options = parse()
    try:
        ran_on = describe(options.folder)
        if options.base_url:
            ran_on.append(f"speed is that of the service at {options.base_url}, wherever that runs")
        print("\n".join(f"- {line}" for line in ran_on), flush=True)
        results: dict[str, Any] = {"ran_on": ran_on}
        for name, measure in parts(options):
            part = measure()
            print("", file=sys.stderr)
            print(f"\n## {name.capitalize()}\n\n{part}", flush=True)
            results[name] = plain(part)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1) + "\n")
    except (BenchError, OSError) as error:
        print(f"\nbench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parts(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Part]]]:
    """Yield the chosen parts. Other servers are contacted here first, before any measurement takes time."""
    chosen = options.part or (["speed"] if options.base_url else ["speed", "workers", "memory"])
    folder, repeats = options.folder, options.repeat
    others = [named(text) for text in options.beside]
    if len({other.name for other in others}) < len(others):
        raise BenchError("there can be one server of each kind beside ours")

    def sized(workloads: dict[str, Workload]) -> dict[str, Workload]:
        return {name: one.shrunk() if options.quick else one for name, one in workloads.items()}

    def asked(workloads: dict[str, Workload]) -> dict[str, Workload]:
        return sized({name: one for name, one in workloads.items() if name in (options.workload or workloads)})

    if "speed" in chosen:
        yield "speed", lambda: speed.measure(folder, asked(WORKLOADS), repeats, others, options.base_url)
    if "volumes" in chosen:
        yield "volumes", lambda: volumes.measure(folder, asked(volumes.WORKLOADS_FOR_VOLUMES), repeats)
    if "workers" in chosen:
        yield "workers", lambda: workers.measure(folder, sized(workers.WORKLOADS_FOR_WORKERS), repeats)
    if "memory" in chosen:
        size = 64 * MIB if options.quick else int(options.memory_gib * GIB)
        yield "memory", lambda: memory.measure(folder, size)


def plain(value: object) -> Any:
    """Return a result in the types of JSON: keys that are tuples become one text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {" ".join(map(str, key)) if isinstance(key, tuple) else key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=("speed", "volumes", "workers", "memory"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--workload", action="append", choices=volumes.WORKLOADS_FOR_VOLUMES | WORKLOADS, help="for speed and volumes"
    )
    parser.add_argument("--beside", action="append", default=[], metavar="KIND=URL[,PIDFILE]", help="for speed")
    parser.add_argument("--base-url", default=os.environ.get("BASE_URL"))
    parser.add_argument("--memory-gib", type=float, default=2)
    parser.add_argument("--folder", type=Path, default=PROJECT / "var", help="on the disk that is measured")
    parser.add_argument("--json", type=Path, help="write every figure of every repeat there")
    parser.add_argument("--quick", action="store_true", help="small files, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.repeat = 1
    return options


if __name__ == "__main__":
    sys.exit(main())
