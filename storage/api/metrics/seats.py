"""The seats of the API's processes: a process counts in the files of its seat, and the next process with this seat
continues the counts.

A process has a seat as long as it lives, and holds it by a file lock. The kernel frees the lock when the process ends,
however it ends. The next process takes the first free seat, and with it the counts of the process before. So restarts
make no files, and no count goes backwards.

The files lie in memory: a request must not wait for a disk, and must not fail because a disk is full.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from pathlib import Path

import structlog
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

log = structlog.get_logger(__name__)

KINDS = ("counter", "histogram")  # The kinds of metrics in ``requests``. Each seat has one file for each kind.
FILE_BYTES = 512 << 10  # There is room for every combination of labels, in case a client tries them all.

_descriptor: int | None = None  # The lock of this process's seat is held through this descriptor.


def claim(folder: Path) -> int | None:
    """Take a seat for this process. This function must be called before the first metric of the process is made.

    Args:
        folder: the directory in which the files of all processes lie. The directory is made if it is missing. Only this
            user can write to its parent directory.

    Returns:
        The number of the seat. None if the directory cannot be used: then this process counts in memory of its own.
    """
    global _descriptor
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        seat, descriptor = _take(folder)
    except OSError as error:
        log.warning("metrics.alone", folder=str(folder), error=str(error))
        return None
    try:
        for kind in KINDS:
            _make_sound(folder / f"{kind}_{seat}.db")
    except OSError as error:
        os.close(descriptor)
        log.warning("metrics.alone", folder=str(folder), error=str(error))
        return None
    _descriptor = descriptor
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # prometheus-client reads this variable.
    values.ValueClass = values.MultiProcessValue(lambda: seat)
    return seat


def gathered() -> MultiProcessCollector | None:
    """The counts of all seats; None if this process counts in memory of its own."""
    return None if _descriptor is None else MultiProcessCollector(None, os.environ["PROMETHEUS_MULTIPROC_DIR"])


def _take(folder: Path) -> tuple[int, int]:
    """Lock the first free seat; returns its number and the descriptor that holds the lock."""
    for seat in itertools.count():
        descriptor = os.open(folder / f"{seat}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return seat, descriptor
    raise AssertionError("the numbers do not end")


def _make_sound(path: Path) -> None:
    """Make the file, or replace it if it cannot be read, and allocate all the room that it needs.

    A process that wrote to a page for which there is no room would be killed.
    """
    try:
        for _ in MmapedDict.read_all_values_from_file(str(path)):
            pass
    except FileNotFoundError:
        pass
    except Exception as error:  # noqa: BLE001  a file that was cut may lead to any error
        log.warning("metrics.lost", path=str(path), error=repr(error))
        path.unlink()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, FILE_BYTES)
    finally:
        os.close(descriptor)
