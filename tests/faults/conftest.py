"""What the fault tests share: an installation whose work can be held at any phase, a journal, an oracle."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.gates import Gates
from tests.faults.journal import Journal
from tests.faults.oracle import Findings, Oracle
from tests.system.conftest import PROJECT, System, make_system

__all__ = ["make_system"]

# A dead worker's job goes back into the queue when its lease has ended (20 s) and the sweeper has come by (5 s), which
# wakes a worker (5 s). STALL_TIMEOUT is 2 s here, so uploads that went silent are dropped before that.
RECOVERY = 30.0  # seconds
PATIENCE = 60.0  # seconds for the work itself, on a machine that is busy with other things

STALL_TIMEOUT = "2"


class Installation:
    """A system under faults, with all that was ever attempted on it."""

    def __init__(self, system: System, gates: Gates) -> None:
        self.system = system
        self.gates = gates
        self.journal = Journal(system.base_url)
        self.oracle = Oracle(self.journal, self.findings)

    def findings(self) -> Findings:
        """Let it come to rest, and look inside."""
        found: Findings = json.loads(self.run("print_findings", repr(RECOVERY + PATIENCE)))
        return found

    def run(self, function: str, argument: str) -> str:
        """Call a function of ``inspection`` inside the system; returns what it prints."""
        with self.start(function, argument) as process:
            output, _ = process.communicate(timeout=RECOVERY + 3 * PATIENCE)
        assert process.returncode == 0, output
        return output

    def start(self, function: str, argument: str) -> subprocess.Popen[str]:
        """Begin a call of a function of ``inspection`` inside the system."""
        code = f"from tests.faults.inspection import {function}; {function}({argument})"
        return subprocess.Popen(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", code],
            cwd=PROJECT,
            env=self.system.environment | {"LOG_LEVEL": "CRITICAL"},
            stdout=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def make_installation(
    make_system: Callable[..., System], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Installation]:
    """Starts an installation whose phases have gates."""

    def make(**environment: str) -> Installation:
        folder = tmp_path_factory.mktemp("gates")
        system = make_system(PHASE_GATES=str(folder), STALL_TIMEOUT=STALL_TIMEOUT, **environment)
        system.start()
        return Installation(system, Gates(folder))

    return make


def bytes_of(label: str, size: int) -> bytes:
    """Always the same for one label, and unlike any other's."""
    return random.Random(label).randbytes(size)


def log_of(system: System, program: str) -> str:
    return (Path(system.storage_dir) / "logs" / f"{program}.log").read_text()
