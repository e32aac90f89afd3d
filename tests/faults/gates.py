"""Holding the processes of a running system at the named phases of their work (see ``storage.phases``)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.system import alive, wait_until

ARRIVAL_LIMIT = 60.0  # seconds until a process comes to a gate, on a machine that is busy with other things


class Gates:
    """The folder that a system's PHASE_GATES names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def close(self, phase: str) -> None:
        """Hold every process that enters the phase from now on."""
        (self.folder / phase).touch()

    def open(self, *phases: str) -> None:
        """Let everybody go who is held there."""
        for phase in phases:
            (self.folder / phase).unlink(missing_ok=True)
            for pid in self._announced(phase):  # of whom some may be dead, or stopped
                (self.folder / f"{phase}.{pid}").unlink(missing_ok=True)

    def held(self, phase: str) -> list[int]:
        """The processes that are held there."""
        return alive(self._announced(phase))

    def await_arrival(self, phase: str) -> int:
        """The pid of the first process that is held at the phase."""
        wait_until(lambda: bool(self.held(phase)), ARRIVAL_LIMIT, lambda: f"nobody came to {phase}")
        return self.held(phase)[0]

    def _announced(self, phase: str) -> list[int]:
        return [int(path.name.rpartition(".")[2]) for path in self.folder.glob(f"{phase}.[0-9]*")]


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Processes that do not run while the body does; those that stand still already are left alone."""
    running = [pid for pid in pids if state_of(pid) not in "TX"]
    for pid in running:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def state_of(pid: int) -> str:
    """One letter, as in proc(5); ``X`` when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return "X"


def kill_all(pids: Sequence[int]) -> None:
    """SIGKILL, and wait until they are gone."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(list(pids)), ARRIVAL_LIMIT, lambda: f"{alive(list(pids))} still run")
