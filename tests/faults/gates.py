"""Gates hold the processes of a running system at the named phases of their work (see ``storage.phases``)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.system import alive, wait_until

ARRIVAL_LIMIT = 60.0  # Seconds within which a process must come to a gate; the machine may be busy with other work.


class Gates:
    """The gates in the directory PHASE_GATES of a system. A gate holds each process that enters the gate's phase."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def close(self, phase: str) -> None:
        """Hold every process that enters the phase from now on."""
        (self.folder / phase).touch()

    def open(self, *phases: str) -> None:
        """Let all processes that are held at these phases go on."""
        for phase in phases:
            (self.folder / phase).unlink(missing_ok=True)
            # A dead or stopped process does not remove the file by which it announced itself.
            for pid in self._announced(phase):
                (self.folder / f"{phase}.{pid}").unlink(missing_ok=True)

    def held(self, phase: str) -> list[int]:
        """Return the pids of the processes that are held at the phase."""
        return alive(self._announced(phase))

    def await_arrival(self, phase: str) -> int:
        """Wait until a process is held at the phase, and return the pid of one such process."""
        wait_until(lambda: bool(self.held(phase)), ARRIVAL_LIMIT, lambda: f"nobody came to {phase}")
        return self.held(phase)[0]

    def _announced(self, phase: str) -> list[int]:
        return [int(path.name.rpartition(".")[2]) for path in self.folder.glob(f"{phase}.[0-9]*")]


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop processes during the ``with`` block. A process that is already stopped is left as it is."""
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
    """Return the state letter of a process, as in proc(5), or ``X`` if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return "X"


def kill_all(pids: Sequence[int]) -> None:
    """Send SIGKILL to processes, and wait until they are gone."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(list(pids)), ARRIVAL_LIMIT, lambda: f"{alive(list(pids))} still run")
