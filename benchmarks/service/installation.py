"""The whole system on an empty directory, for one measurement."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.service.client import BenchError, Connection, get_json
from benchmarks.service.processes import trees, usage
from benchmarks.service.targets import OccStorage
from occsite.launch.process import dying_with_parent
from occsite.launch.programs import FOREGROUND, PROJECT, manager_proxy
from occsite.launch.runtime import runtime_dir

START_LIMIT = 120.0  # The system has this many seconds to become ready, and as many again to come to rest.
# The system is at rest if its processes together use less than this many seconds of processor time per second.
REST = 0.1
# These variables are not inherited: they name another installation.
FOREIGN = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY")


@dataclass(frozen=True)
class Installation:
    """A running system."""

    storage_dir: Path
    base_url: str
    manager: int  # The process id of the manager.

    def programs(self) -> dict[str, list[int]]:
        """Return the processes of every program.

        The manager, and the parents of the API's processes and of the workers, have entries of their own.
        """
        answer = manager_proxy(self.storage_dir).supervisor.getAllProcessInfo()
        running = cast(list[dict[str, Any]], answer)
        found = trees({program["name"]: program["pid"] for program in running if program["pid"]})
        for name in FOREGROUND:
            found[f"{name} parent"], found[name] = found[name][:1], found[name][1:]
        return {"manager": [self.manager], **found}

    def target(self, name: str = "ours") -> OccStorage:
        return OccStorage(name, self.base_url, self.programs)


@contextmanager
def installed(folder: Path, **environment: str) -> Iterator[Installation]:
    """Start a system below ``folder`` with extra environment variables, and remove it at the end.

    Raises:
        BenchError: the system does not become ready.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="bench-", dir=folder))
    storage_dir, output_path, port = home / "state", home / "output", _free_port()
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    place = {"STORAGE_DIR": str(storage_dir), "HOST": "127.0.0.1", "PORT": str(port), "S3_PORT": "0"}
    argv = dying_with_parent(signal.SIGTERM, [sys.executable, "manage.py", "serve"])
    with output_path.open("wb") as output:
        process = subprocess.Popen(
            argv,
            cwd=PROJECT,
            env=inherited | place | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _await_ready(port, process, output_path)
        installation = Installation(storage_dir, f"http://127.0.0.1:{port}", process.pid)
        _await_rest(installation)
        yield installation
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        shutil.rmtree(runtime_dir(storage_dir), ignore_errors=True)
        shutil.rmtree(home)


def _await_ready(port: int, process: subprocess.Popen[bytes], output_path: Path) -> None:
    """Wait until the API is ready and the sketches of the new nodes are built."""
    deadline = time.monotonic() + START_LIMIT
    while True:
        connection = Connection("127.0.0.1", port)
        try:
            ready = get_json(connection, "/health")["ready"]
            if ready and get_json(connection, "/status")["network"]["sketches"] == "trusted":
                return
        except (BenchError, OSError):
            pass
        finally:
            connection.close()
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"the system does not become ready:\n{output_path.read_text()}")
        time.sleep(0.2)


def _await_rest(installation: Installation) -> None:
    """Wait until the workers, which no client waits for, have started as well, and all processes are at rest."""
    deadline = time.monotonic() + START_LIMIT
    while True:
        programs = installation.programs()
        before = usage(programs)
        time.sleep(1)
        if programs["worker"] and (usage(installation.programs()) - before).seconds < REST:
            return
        if time.monotonic() > deadline:
            raise BenchError("the system does not come to rest")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast(int, probe.getsockname()[1])
