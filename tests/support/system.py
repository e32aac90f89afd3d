"""The real system: ``manage.py serve`` with its own databases, as an operator starts it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast
from urllib.request import ProxyHandler, build_opener

import pytest

from occsite.launch.process import dying_with_parent
from occsite.launch.programs import manager_proxy
from occsite.launch.runtime import lingering, runtime_dir, scratch_dir

PROJECT = Path(__file__).resolve().parents[2]
START_LIMIT = 60.0  # Seconds until the system is ready.
STOP_LIMIT = 10.0  # Seconds that an orderly stop may take.
INHERITED_LIMIT = 5.0  # Seconds within which the children of a killed process end.


class System:
    """One installation: a state directory, a port, and at most one run at a time."""

    def __init__(self, storage_dir: Path, **environment: str) -> None:
        self.storage_dir = storage_dir
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.output_path = storage_dir.with_suffix(".output")
        self.process: subprocess.Popen[bytes] | None = None
        foreign = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY")
        self.environment = {name: value for name, value in os.environ.items() if name not in foreign}
        self.environment |= {"STORAGE_DIR": str(storage_dir), "PORT": str(self.port), "S3_PORT": "0"}
        self.environment |= {"INGEST_WORKERS": "1"}
        self.environment |= environment

    @property
    def pid(self) -> int:
        """The pid of the manager."""
        assert self.process is not None
        return self.process.pid

    def serve(self, **environment: str) -> subprocess.Popen[bytes]:
        """Run ``manage.py serve`` with additional environment variables.

        The output is appended to the file at ``output_path``.
        """
        argv = dying_with_parent(signal.SIGKILL, [sys.executable, "manage.py", "serve"])
        with self.output_path.open("ab") as output:
            return subprocess.Popen(
                argv,
                cwd=PROJECT,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def start(self) -> float:
        """Start the system and wait until it is ready. Return the seconds that the start took."""
        begun, banners = time.monotonic(), self.banners()
        self.process = self.serve()
        # Wait for the banner and not for an answer, because a run that is being killed may still answer.
        wait_until(lambda: self.is_running() and self.banners() > banners, START_LIMIT, self.output)
        return time.monotonic() - begun

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> float:
        """Ask the run to end by a signal, and wait for its end. Return the seconds that the stop took."""
        if self.process is None:
            return 0.0
        begun = time.monotonic()
        self.process.send_signal(signum)
        try:
            self.process.wait(START_LIMIT)
        finally:
            self.process.kill()
        return time.monotonic() - begun

    def restart(self) -> float:
        """Stop the system, start it, and wait until it is ready. Return the seconds the start took."""
        self.stop()
        return self.start()

    def kill(self, name: str, signum: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the program ``name``, which may be ``manager``. Return the pid that the program had."""
        pid = self.pid if name == "manager" else self.pids()[name]
        os.kill(pid, signum)
        if name == "manager" and self.process is not None:
            self.process.wait()
        return pid

    def pids(self) -> dict[str, int]:
        """Ask the manager for the running programs: name → pid."""
        found = cast(list[dict[str, Any]], manager_proxy(self.storage_dir).supervisor.getAllProcessInfo())
        return {program["name"]: program["pid"] for program in found if program["pid"]}

    def processes(self) -> list[int]:
        """Return the pids of the manager and of all its descendants."""
        found, parents = [self.pid], _parents()
        for pid in found:  # The list grows during the loop.
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def children(self, name: str) -> list[int]:
        """Return the pids of the processes that a program has forked: none while the program does not run."""
        return children_of(self.pids().get(name))

    def family(self, name: str) -> list[int]:
        """Return the pids of a running program and of its forked processes, which may look for work by themselves."""
        return [self.pids()[name], *self.children(name)]

    def health(self) -> dict[str, Any]:
        with build_opener(ProxyHandler({})).open(f"{self.base_url}/health", timeout=5) as response:
            return cast(dict[str, Any], json.load(response))

    def is_running(self) -> bool:
        """Return True. Fail the test if the run has ended."""
        assert self.process is not None
        assert self.process.poll() is None, f"serve ended with status {self.process.returncode}:\n{self.output()}"
        return True

    def is_ready(self) -> bool:
        try:
            return self.is_running() and self.health()["ready"] is True
        except (OSError, HTTPException):
            return False

    def banners(self) -> int:
        """Count how often a run has printed that it is ready."""
        if not self.output_path.exists():
            return 0
        return self.output().count(f"OCC Storage listens on {self.base_url}")

    def output(self) -> str:
        """Return everything that the runs of this installation have printed."""
        return self.output_path.read_text()


def wait_until(condition: Callable[[], object], limit: float, why: Callable[[], str] = str) -> float:
    """Fail the test unless ``condition`` becomes true within ``limit`` seconds. Return the seconds until the condition
    was true.

    ``why`` returns words for the message of the failure.
    """
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < limit, f"not within {limit:.0f} s: {why()}"
        time.sleep(0.05)
    return time.monotonic() - begun


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast(int, probe.getsockname()[1])


def alive(pids: list[int]) -> list[int]:
    """Return the members of ``pids`` that still run. A zombie does not run."""
    return [pid for pid in pids if pid in _parents()]


def children_of(program: int | None) -> list[int]:
    """Return the pids of the processes whose parent is ``program``."""
    return [child for child, parent in _parents().items() if parent == program]


def _parents() -> dict[int, int]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = path.read_text().split(" (", 1)
        except OSError:
            continue
        state, parent = rest.rsplit(") ", 1)[1].split()[:2]
        if state != "Z":
            found[int(pid)] = int(parent)
    return found


@pytest.fixture(scope="module")
def make_system() -> Iterator[Callable[..., System]]:
    """Make installations that are not started yet.

    The installations are stopped and removed after the module's last test.
    """
    root = Path(tempfile.mkdtemp(prefix="occ-system-"))
    made: list[System] = []

    def make(folder: str = "", **environment: str) -> System:
        made.append(System(root / (folder or f"state_{len(made)}"), **environment))
        return made[-1]

    yield make
    for system in made:
        system.stop()
        wait_until(lambda system=system: not lingering(system.storage_dir), STOP_LIMIT)  # type: ignore[misc]
        for folder in (runtime_dir(system.storage_dir), scratch_dir(system.storage_dir)):
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def system(make_system: Callable[..., System]) -> System:
    """A running installation that the tests of a module share.

    The name of the installation's directory has blanks and special characters.
    """
    found = make_system("Daten 100% für; #1 'd\"")
    found.start()
    return found
