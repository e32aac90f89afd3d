"""Reads from /proc what the processes of a server use: processor time, memory, bytes written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service.workloads import MIB

TICKS = os.sysconf("SC_CLK_TCK")  # Clock ticks per second.

Trees = Mapping[str, list[int]]
"""The processes of each program."""


@dataclass(frozen=True)
class Usage:
    """Processor time and writes of processes since they began, including their children that have ended."""

    seconds: float
    written: int  # Bytes written to the page cache or the disk.

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.seconds - other.seconds, self.written - other.written)


def trees(roots: Mapping[str, int]) -> dict[str, list[int]]:
    """Return, for each program, its root process and all descendants of that process."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(_fields(path)[1]), []).append(int(path.parent.name))
    found = {}
    for name, root in roots.items():
        found[name] = [root]
        for pid in found[name]:  # The list grows during the loop.
            found[name] += children.get(pid, [])
    return found


def usage(programs: Trees) -> Usage:
    """Return the processor time and the writes of all programs together.

    The kernel adds the figures of a process that has ended to those of the parent that waited for it. So nothing is
    lost between two calls, as long as the root processes live.
    """
    seconds, written = 0.0, 0
    for pid in _all(programs):
        with suppress(OSError):
            folder = Path(f"/proc/{pid}")
            seconds += sum(map(int, _fields(folder / "stat")[11:15])) / TICKS
            written += int(_line(folder / "io", "write_bytes:"))
    return Usage(seconds, written)


def forget_peaks(programs: Trees) -> None:
    """Reset the kernel's record of each process's peak memory. If the kernel refuses, the older peak stays."""
    for pid in _all(programs):
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def peaks(programs: Trees) -> dict[str, float]:
    """Return, for each program, the peak memory of its largest process since `forget_peaks`, in MiB."""
    return {name: max((_peak(pid) for pid in pids), default=0.0) for name, pids in programs.items()}


@dataclass(frozen=True)
class Used:
    """What a server used during a measurement, and the peak of the largest process of each program, in MiB."""

    usage: Usage
    peaks: dict[str, float]


def watch(programs: Callable[[], Trees]) -> Callable[[], Used]:
    """Begin to watch a server. The returned function tells what the server has used since then."""
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
    """Return the fields after the process name: state, parent and so on. The name may contain any character."""
    return stat.read_text().rpartition(")")[2].split()


def _line(path: Path, name: str) -> str:
    """Return the value of one line; 0 for a process that has ended, whose file does not have the line."""
    return next((line.removeprefix(name) for line in path.read_text().splitlines() if line.startswith(name)), "0")
