"""Measures the memory of the processes, for a small file and for a large file.

No process may hold the large file as a whole.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from benchmarks.service.client import BenchError, Body, expect
from benchmarks.service.installation import Installation, installed
from benchmarks.service.measuring import download, upload
from benchmarks.service.processes import watch
from benchmarks.service.table import Cell, table
from benchmarks.service.workloads import GIB, MIB, WARM_UP, blocks, samples
from occsite.launch.programs import FOREGROUND

SMALL = MIB
ROOM = 4.5  # Disk space needed, as a multiple of the file's size: staging, three replicas, and a reserve.
PATIENCE = 3600  # The client waits this many seconds for an answer.
MOST, FLAT = 150.0, 20.0
"""Limits in MiB: the memory of a process, and how much more it may use for a large file than for a small file."""

LEGEND = f"""MiB in memory of the largest process of each program at its peak: at most {MOST:.0f}, and at most
{FLAT:.0f} more for the large file than for the small one. Raw bodies, one client.
"""


@dataclass(frozen=True)
class Transfer:
    """The upload or the download of one file."""

    size: int
    direction: str
    seconds: float
    peaks: dict[str, float]  # program → peak memory of its largest process, in MiB


@dataclass(frozen=True)
class Memory:
    transfers: Sequence[Transfer]

    def __str__(self) -> str:
        programs = list(self.transfers[0].peaks)
        first = [*FOREGROUND, *sorted(set(programs) - set(FOREGROUND))]
        rows: list[tuple[Cell, ...]] = []
        for one in self.transfers:
            size = f"{one.size / GIB:g} GiB" if one.size >= GIB else f"{one.size // MIB} MiB"
            rate = one.size / MIB / one.seconds
            rows.append((f"{size} {one.direction}", rate, *(one.peaks[name] for name in first)))
        return "\n".join([LEGEND, table(("file", "MiB/s", *first), rows), "", *self.verdicts()])

    def verdicts(self) -> Iterator[str]:
        """Yield a line for each program that handles files: does it keep to its limits?"""
        for name in FOREGROUND:
            highest = max(one.peaks[name] for one in self.transfers)
            grown = max(
                large.peaks[name] - small.peaks[name]
                for small in self.transfers
                for large in self.transfers
                if small.direction == large.direction and small.size < large.size
            )
            kept = "kept" if highest <= MOST and grown <= FLAT else "NOT KEPT"
            yield f"- {name}: {highest:.0f} MiB at most, {grown:+.0f} MiB for the large file: {kept}"


def measure(folder: Path, size: int) -> Memory:
    """Upload and download a small and a large file with one client.

    Bodies are made while they are sent, and checked while they arrive.

    Raises:
        BenchError: the disk has no room for the file, or a body came back with other bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < ROOM * size:
        raise BenchError(f"a file of {size / GIB:g} GiB needs {ROOM * size / GIB:.0f} GiB; free are {free / GIB:.0f}")
    with installed(folder, MAX_UPLOAD_SIZE=str(size), UPLOAD_WAIT=str(PATIENCE)) as installation:
        _warm_up(installation, folder)
        return Memory([transfer for each in (SMALL, size) for transfer in _there_and_back(installation, each)])


def _warm_up(installation: Installation, folder: Path) -> None:
    """Let every process serve a request first, so that the measurement excludes modules that load at first use."""
    target = installation.target()
    with samples(WARM_UP) as made:
        upload(target, WARM_UP, made, folder)
        download(target, WARM_UP, made, folder)


def _there_and_back(installation: Installation, size: int) -> Iterator[Transfer]:
    connection = installation.target().connect(PATIENCE)
    digest = sha256()

    def pieces() -> Iterator[bytes]:
        for block in blocks(size):
            digest.update(block)
            yield block

    used, begun = watch(installation.programs), time.perf_counter()
    headers = {"Content-Type": "application/octet-stream"}
    answer = expect(connection.request("PUT", "/upload/large.bin", headers, Body(size, pieces())), 201)
    found = json.loads(answer.read())["file_hash"]
    yield Transfer(size, "up", time.perf_counter() - begun, used().peaks)
    if found != digest.hexdigest():
        raise BenchError(f"{digest.hexdigest()} is called {found}")

    used, begun = watch(installation.programs), time.perf_counter()
    answer, received, room = expect(connection.request("GET", f"/download/{found}"), 200), sha256(), bytearray(MIB)
    while count := answer.receive(memoryview(room)):
        received.update(memoryview(room)[:count])
    yield Transfer(size, "down", time.perf_counter() - begun, used().peaks)
    connection.close()
    if received.hexdigest() != found:
        raise BenchError(f"{found} came back with other bytes")
