"""What the processes of a server use: processor time, memory, bytes written; read from /proc."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service.workloads import MIB

TICKS = os.sysconf("SC_CLK_TCK")  # in a second

Trees = Mapping[str, list[int]]
"""The processes of each program."""


@dataclass(frozen=True)
class Usage:
    """What processes have used since they began, with those of their children that have ended."""

    seconds: float
    written: int  # bytes, to page cache or disk

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.seconds - other.seconds, self.written - other.written)


def trees(roots: Mapping[str, int]) -> dict[str, list[int]]:
    """For each program its process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(_fields(path)[1]), []).append(int(path.parent.name))
    found = {}
    for name, root in roots.items():
        found[name] = [root]
        for pid in found[name]:  # grows while it is walked
            found[name] += children.get(pid, [])
    return found


def usage(programs: Trees) -> Usage:
    """The sum over all programs.

    A process that has ended is in the figures of the one that waited for it, so nothing is lost between two calls
    as long as the programs go on.
    """
    seconds, written = 0.0, 0
    for pid in _all(programs):
        with suppress(OSError):
            folder = Path(f"/proc/{pid}")
            seconds += sum(map(int, _fields(folder / "stat")[11:15])) / TICKS
            written += int(_line(folder / "io", "write_bytes:"))
    return Usage(seconds, written)


def forget_peaks(programs: Trees) -> None:
    """Let the kernel note anew how much memory each process has at most; where it refuses, the older peak stays."""
    for pid in _all(programs):
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def peaks(programs: Trees) -> dict[str, float]:
    """MiB that the largest process of each program has had in memory since the peaks were forgotten."""
    return {name: max((_peak(pid) for pid in pids), default=0.0) for name, pids in programs.items()}


@dataclass(frozen=True)
class Used:
    """What a server used in a while, and the largest process of each program then, in MiB."""

    usage: Usage
    peaks: dict[str, float]


def watch(programs: Callable[[], Trees]) -> Callable[[], Used]:
    """Begin to watch a server; what is returned says what it has used since."""
    first = programs()
    forget_peaks(first)
    before = usage(first)

    def end() -> Used:
        last = programs()
        return Used(usage(last) - before, peaks(last))

    return end


def _peak(pid: int) -> float:
    with suppress(OSError):
        return int(_line(Path(f"/proc/{pid}/status"), "VmHWM:").split()[0]) * 1024 / MIB
    return 0.0


def _all(programs: Trees) -> Iterable[int]:
    return {pid for pids in programs.values() for pid in pids}


def _fields(stat: Path) -> list[str]:
    """What follows the name, which may hold anything: state, parent, …"""
    return stat.read_text().rpartition(")")[2].split()


def _line(path: Path, name: str) -> str:
    """The value of one line; 0 of a zombie, which has none."""
    return next((line.removeprefix(name) for line in path.read_text().splitlines() if line.startswith(name)), "0")
