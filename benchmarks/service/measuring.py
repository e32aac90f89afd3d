"""Measures one workload on one server: all uploads, then all downloads."""

from __future__ import annotations

import math
import os
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service.client import BenchError, Connection
from benchmarks.service.machine import Busy, watch_busy
from benchmarks.service.processes import Used, watch
from benchmarks.service.targets import Target
from benchmarks.service.workloads import GIB, MIB, Sample, Workload

Operation = Callable[[Connection, Sample], None]


@dataclass(frozen=True)
class Figures:
    """The figures of uploads or of downloads.

    Processor time and writes are None if the server's processes are not known.
    """

    mib_per_second: float
    operations_per_second: float
    p50: float  # The median latency in milliseconds.
    p99: float
    cpu_per_gib: float | None  # Seconds of processor time.
    written: float | None  # Bytes that the server wrote for each byte that was moved.
    peaks: dict[str, float]  # program → peak memory of its largest process, in MiB
    busy: Busy

    @classmethod
    def of(cls, workload: Workload, seconds: float, latencies: Sequence[float], used: Used, busy: Busy) -> Figures:
        moved = workload.size * len(latencies)
        known = bool(used.peaks)
        return cls(
            mib_per_second=moved / MIB / seconds,
            operations_per_second=len(latencies) / seconds,
            p50=statistics.median(latencies) * 1000,
            p99=percentile(latencies, 99) * 1000,
            cpu_per_gib=used.usage.seconds / (moved / GIB) if known else None,
            written=used.usage.written / moved if known else None,
            peaks=used.peaks,
            busy=busy,
        )

    @classmethod
    def median(cls, many: Sequence[Figures]) -> Figures:
        """Return the median of each figure; for memory peaks, the largest."""
        return cls(
            mib_per_second=statistics.median(one.mib_per_second for one in many),
            operations_per_second=statistics.median(one.operations_per_second for one in many),
            p50=statistics.median(one.p50 for one in many),
            p99=statistics.median(one.p99 for one in many),
            cpu_per_gib=median_of_known(one.cpu_per_gib for one in many),
            written=median_of_known(one.written for one in many),
            peaks={name: max(one.peaks.get(name, 0.0) for one in many) for name in many[0].peaks},
            busy=Busy(
                tuple(statistics.median(shares) for shares in zip(*(one.busy.cores for one in many), strict=True)),
                median_of_known(one.busy.disk for one in many),
            ),
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that ``percent`` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


def median_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def upload(target: Target, workload: Workload, made: Sequence[Sample], folder: Path) -> Figures:
    """Upload every sample. The disks are synced first."""
    os.sync()
    return run(target, workload, made, lambda c, sample: target.upload(c, sample, raw=workload.raw), folder)


def download(target: Target, workload: Workload, made: Sequence[Sample], folder: Path) -> Figures:
    """Download every sample, and compare the bytes when the clock has stopped. The disks are synced first."""
    os.sync()
    figures = run(target, workload, made, target.download, folder)
    for sample in made:
        target.check(sample)
    return figures


def delete(target: Target, made: Sequence[Sample]) -> None:
    connection = target.connect()
    for sample in made:
        target.delete(connection, sample)
    connection.close()


def run(target: Target, workload: Workload, made: Sequence[Sample], operation: Operation, folder: Path) -> Figures:
    """Carry out an operation on every sample, with all clients at the same time.

    Raises:
        BenchError: an operation failed.
    """
    waiting: queue.SimpleQueue[Sample] = queue.SimpleQueue()
    for sample in made:
        waiting.put(sample)
    latencies: list[float] = []
    failures: list[Exception] = []
    go = threading.Event()
    connections = [target.connect() for _ in range(workload.clients)]
    for connection in connections:
        connection.open()

    def work(connection: Connection) -> None:
        go.wait()
        try:
            while not failures:
                sample = waiting.get_nowait()
                begun = time.perf_counter()
                operation(connection, sample)
                latencies.append(time.perf_counter() - begun)
        except queue.Empty:
            pass
        except (BenchError, OSError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(connection,), daemon=True) for connection in connections]
    for thread in threads:
        thread.start()
    used, busy = watch(target.programs), watch_busy(folder)
    begun = time.perf_counter()
    go.set()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    figures_of_machine, figures_of_server = busy(), used()
    for connection in connections:
        connection.close()
    if failures:
        raise BenchError(f"{target.name}: {failures[0]!r}")
    return Figures.of(workload, seconds, latencies, figures_of_server, figures_of_machine)
