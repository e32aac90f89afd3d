"""What the fault tests share: an installation whose work can be held at any phase, a journal, an oracle.

A scenario does what it does through the installation's journal, ends its fault, and calls ``settle``: every scenario is
judged by the same rules, and leaves a row in the table that the run ends with.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from occsite.addresses import broker_url
from occsite.launch.embedded import redis_url
from storage.queues import Queue
from tests.faults.gates import Gates
from tests.faults.journal import Action, Journal, Outcome
from tests.faults.oracle import Findings, Oracle, lost_files, wrong_answers
from tests.faults.report import ROWS, SEED, Row
from tests.support.system import PROJECT, System, make_system

__all__ = ["make_system"]

# A dead worker's job goes back into the queue when its lease has ended (20 s) and the sweeper has come by (5 s), which
# wakes a worker (5 s). STALL_TIMEOUT is 2 s here, so uploads that went silent are dropped before that.
RECOVERY = 30.0  # seconds
PATIENCE = 60.0  # seconds for the work itself, on a machine that is busy with other things

STALL_TIMEOUT = "2"
REPAIR_DELAY = "0"  # a node that is still away when all comes to rest is one that does not come back


class Installation:
    """A system under faults, with all that was ever attempted on it."""

    def __init__(self, system: System, gates: Gates, rows: list[Row]) -> None:
        self.system = system
        self.gates = gates
        self.journal = Journal(system.base_url)
        self.oracle = Oracle(self.journal)
        self._rows = rows
        self._judged = 0  # attempts that earlier scenarios have made

    def settle(self, scenario: str, *, since: float | None = None, within: float = RECOVERY + PATIENCE) -> None:
        """End a scenario: wait until the system is at rest, and fail unless everything is as it was promised.

        Args:
            scenario: its name in the table; runs of one name are one line there.
            since: when the fault was over, by the monotonic clock; by default now.
            within: seconds that work may take to come to an end, from now.
        """
        over = time.monotonic() if since is None else since
        rested, findings = self.findings(within)
        violations = self.oracle.violations(findings)
        attempts = self.journal.attempts[self._judged :]
        self._judged = len(self.journal.attempts)
        acknowledged = [attempt.action for attempt in attempts if attempt.outcome is Outcome.ACKNOWLEDGED]
        row = Row(
            scenario,
            uploads=acknowledged.count(Action.UPLOAD),
            downloads=acknowledged.count(Action.DOWNLOAD),
            lost=lost_files(violations),
            wrong=wrong_answers(violations),
            recovery=max(0.0, rested - over),
        )
        self._rows.append(row)
        print(row)
        assert not violations, "\n".join([f"{len(violations)} violations after {scenario}:", *violations])

    def send(self, task: str, *, arguments: Sequence[object] = (), times: int = 1, countdown: float = 0.0) -> None:
        """Deliver a Celery task to its queue: so many messages, none of which is taken sooner than the countdown."""
        queue = Queue.INGEST if task == "storage.ingest" else Queue.MAINTENANCE
        with Celery(broker=broker_url(redis_url(self.system.storage_dir))) as app:
            for _ in range(times):
                app.send_task(task, arguments, queue=queue.value, countdown=countdown or None)

    def findings(self, within: float = RECOVERY + PATIENCE) -> tuple[float, Findings]:
        """Let it come to rest, and look inside: when it rested, or was waited for no longer, and what is wrong."""
        found: dict[str, Any] = json.loads(self.run("print_findings", repr(within), limit=within + 2 * PATIENCE))
        return found["rested"], found["findings"]

    def run(self, function: str, argument: str = "", *, limit: float = 2 * PATIENCE) -> str:
        """Call a function of ``inspection`` inside the system; returns what it prints."""
        with self.start(function, argument) as process:
            try:
                output, _ = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode == 0, output
        return output

    def start(self, function: str, argument: str = "") -> subprocess.Popen[str]:
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
    make_system: Callable[..., System], tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Callable[..., Installation]:
    """Starts an installation whose phases have gates."""

    def make(**environment: str) -> Installation:
        folder = tmp_path_factory.mktemp("gates")
        usual = {"PHASE_GATES": str(folder), "STALL_TIMEOUT": STALL_TIMEOUT, "REPAIR_DELAY": REPAIR_DELAY}
        system = make_system(**usual | environment)
        system.start()
        return Installation(system, Gates(folder), pytestconfig.stash[ROWS])

    return make


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """What a test draws from: always the same for one seed of the run, and unlike any other test's."""
    return random.Random(f"{request.config.stash[SEED]} {request.node.nodeid}")


def copies(installation: Installation, chunk: bytes) -> list[Path]:
    """The copies of a chunk, looked up in the folders, past all our code."""
    chunk_hash = hashlib.sha256(chunk).hexdigest()
    return list(installation.system.storage_dir.glob(f"nodes/*/chunks/{chunk_hash[:2]}/{chunk_hash}"))


def bytes_of(label: str, size: int) -> bytes:
    """Always the same for one label, and unlike any other's."""
    return random.Random(label).randbytes(size)


def log_of(system: System, program: str) -> str:
    """What a program has said; it has no log before its first line."""
    log = Path(system.storage_dir) / "logs" / f"{program}.log"
    return log.read_text() if log.exists() else ""
