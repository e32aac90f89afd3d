"""Describes the machine of a measurement, and how busy it was."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service.client import BenchError
from benchmarks.service.workloads import GIB
from occsite.launch.embedded import postgres_argv, valkey_argv
from occsite.launch.programs import PROJECT

BUSY = 90.0  # A resource that is busy for at least this many percent of the time is the bottleneck.


@dataclass(frozen=True)
class Busy:
    """How busy each core and the disk of a directory were, in percent. ``disk`` is None if the disk is not known."""

    cores: tuple[float, ...]
    disk: float | None

    def saturated(self) -> str:
        """Return the resource that was the bottleneck.

        The cores count as one resource, because work can move to a free core.
        """
        cores = sum(self.cores) / len(self.cores)
        busiest, name = max((cores, "cores"), (self.disk or 0.0, "disk"))
        return name if busiest >= BUSY else f"neither, {name} nearest"


def watch_busy(folder: Path) -> Callable[[], Busy]:
    """Begin to watch the machine. The returned function tells how busy the machine has been since then."""
    cores, (disk, clock) = _core_ticks(), _disk_milliseconds(folder)

    def end() -> Busy:
        last, (last_disk, last_clock) = _core_ticks(), _disk_milliseconds(folder)
        shares = []
        for (busy, total), (last_busy, last_total) in zip(cores, last, strict=True):
            shares.append(100 * (last_busy - busy) / max(last_total - total, 1))
        if disk is None or last_disk is None:
            return Busy(tuple(shares), None)
        return Busy(tuple(shares), min(100.0, 100 * (last_disk - disk) / max(last_clock - clock, 1)))

    return end


def describe(folder: Path) -> list[str]:
    """Describe the machine, the disk and the versions, in one line each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    kind, device = _file_system(folder)
    disk = _disk(folder)
    load = os.getloadavg()[0]
    return [
        f"{os.cpu_count()} cores ({_processor()}), {memory:.1f} GiB of memory; load before it began {load:.1f}",
        f"{platform.system()} {platform.release()}; {kind} on {device}{'' if disk is None else f' ({disk.name})'}",
        f"Python {platform.python_version()}; {_version(postgres_argv(folder))}; {_version(valkey_argv(folder))}",
        f"commit {_commit()}",
    ]


def _core_ticks() -> list[tuple[int, int]]:
    """Return, for each core, the ticks in which it worked, and all ticks."""
    found = []
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("cpu") and not line.startswith("cpu "):
            ticks = [int(word) for word in line.split()[1:9]]
            # Waits for the disk count as idle, and so does the time that other virtual machines had.
            idle = ticks[3] + ticks[4] + ticks[7]
            found.append((sum(ticks) - idle, sum(ticks)))
    return found


def _disk_milliseconds(folder: Path) -> tuple[int | None, int]:
    """Return how long the disk has been busy (None if not known), and how long the machine has been up, in
    milliseconds.
    """
    disk = _disk(folder)
    uptime = round(float(Path("/proc/uptime").read_text().split()[0]) * 1000)
    return (None if disk is None else int((disk / "stat").read_text().split()[9])), uptime


def _disk(folder: Path) -> Path | None:
    """Return the directory in /sys about the device that holds ``folder``; None if /sys has no such directory."""
    device = _existing(folder).stat().st_dev
    found = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    return found.resolve() if found.exists() else None


def _file_system(folder: Path) -> tuple[str, str]:
    """Return the type and the device of the file system that holds ``folder``.

    Of all mounted file systems, this is the one that is mounted nearest above ``folder``.
    """
    place = _existing(folder).resolve()
    found = ("", "unknown file system", "unknown device")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, mount, kind, *_ = line.split(" ")
        if place.is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, kind, device)
    return found[1:]


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(argv: list[str]) -> str:
    server = next(word for word in argv if Path(word).name in ("postgres", "valkey-server"))
    return " ".join(_said([server, "--version"]).split()[:3])


def _commit() -> str:
    try:
        return _said(["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=10"])
    except BenchError:
        return "unknown"


def _said(argv: list[str]) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"{argv[0]} cannot be asked: {error}") from error
