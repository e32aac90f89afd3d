"""Helpers of the fault tests: an installation whose work can be held at any phase, its journal, and its oracle.

A scenario sends its requests through the installation's journal, ends its fault, and calls ``settle``. The same rules
judge every scenario. Each scenario adds a row to the table that is printed at the end of the run.
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
from tests.faults.journal import Action, Attempt, Exchange, Journal, Outcome
from tests.faults.object_journal import ObjectJournal
from tests.faults.oracle import Findings, Oracle, lost_files, wrong_answers
from tests.faults.registers import Change, Look
from tests.faults.report import ROWS, SEED, Row
from tests.support.packs import PackedCopy
from tests.support.system import PROJECT, System, make_system

__all__ = ["make_system"]

# A dead worker's job runs again within 30 s: its lease ends (20 s), a sweep puts the job back into the queue (5 s), and
# the sweep wakes a worker (5 s). An upload whose client is silent is dropped within 30 s too, because STALL_TIMEOUT is
# 2 s here.
RECOVERY = 30.0  # Seconds until a dead worker's job runs again.
PATIENCE = 60.0  # Seconds for the work itself; the machine may be busy with other work.

STALL_TIMEOUT = "2"
REPAIR_DELAY = "0"  # Repair need not wait: a node that is away at the end of a scenario does not come back.


class Installation:
    """A system under faults, and the journal of everything that was ever attempted on it."""

    def __init__(self, system: System, gates: Gates, rows: list[Row]) -> None:
        self.system = system
        self.gates = gates
        self.journal = Journal(system.base_url)
        self.oracle = Oracle(self.journal)
        self.objects = ObjectJournal(f"127.0.0.1:{system.environment['S3_PORT']}")
        self._rows = rows
        self._judged = set[Exchange]()  # The requests of earlier scenarios.

    def settle(self, scenario: str, *, since: float | None = None, within: float = RECOVERY + PATIENCE) -> None:
        """End a scenario: wait until the system is at rest, and fail if the system has broken a promise.

        Args:
            scenario: the name of the scenario in the table. Runs with the same name share a line of the table.
            since: the time of the monotonic clock at which the fault was over; by default now.
            within: seconds from now within which all work must have ended.
        """
        over = time.monotonic() if since is None else since
        rested, findings = self.findings(within)
        violations = [*self.oracle.violations(findings), *self.objects.violations()]
        attempts: list[Attempt | Change | Look] = [*self.journal.attempts, *self.objects.exchanges]
        new = [attempt for attempt in attempts if attempt not in self._judged]
        self._judged.update(new)
        acknowledged = [attempt.action for attempt in new if attempt.outcome is Outcome.ACKNOWLEDGED]
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
        """Send ``times`` messages of a Celery task to its queue.

        No worker runs the task before ``countdown`` seconds.
        """
        queue = Queue.INGEST if task == "storage.ingest" else Queue.MAINTENANCE
        with Celery(broker=broker_url(redis_url(self.system.storage_dir))) as app:
            for _ in range(times):
                app.send_task(task, arguments, queue=queue.value, countdown=countdown or None)

    def findings(self, within: float = RECOVERY + PATIENCE) -> tuple[float, Findings]:
        """Wait until the system is at rest, for at most ``within`` seconds, and collect the findings of ``inspection``.

        Returns the time of the monotonic clock at which the wait ended, and the findings.
        """
        found: dict[str, Any] = json.loads(self.run("print_findings", repr(within), limit=within + 2 * PATIENCE))
        return found["rested"], found["findings"]

    def run(self, function: str, argument: str = "", *, limit: float = 2 * PATIENCE, module: str = "inspection") -> str:
        """Call a function of a module of ``tests.faults`` inside the system. Return the output of the function."""
        with self.start(function, argument, module=module) as process:
            try:
                output, _ = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode == 0, output
        return output

    def start(self, function: str, argument: str = "", *, module: str = "inspection") -> subprocess.Popen[str]:
        """Begin a call of a function of a module of ``tests.faults`` inside the system."""
        code = f"from tests.faults.{module} import {function}; {function}({argument})"
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
    """Start an installation whose phases have gates."""

    def make(**environment: str) -> Installation:
        folder = tmp_path_factory.mktemp("gates")
        usual = {"PHASE_GATES": str(folder), "STALL_TIMEOUT": STALL_TIMEOUT, "REPAIR_DELAY": REPAIR_DELAY}
        system = make_system(**usual | environment)
        system.start()
        return Installation(system, Gates(folder), pytestconfig.stash[ROWS])

    return make


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """The random generator of a test.

    The random numbers depend on the seed of the run and on the test, so a run can be repeated.
    """
    return random.Random(f"{request.config.stash[SEED]} {request.node.nodeid}")


def places(installation: Installation, chunk: bytes) -> list[Any]:
    """List every place where a node may have a copy of a chunk.

    A place is the path of a file. On a node of packs, it is an object with the methods of a path.
    """
    chunk_hash = hashlib.sha256(chunk).hexdigest()
    return [
        PackedCopy(folder, chunk_hash)
        if (folder / "packs").exists()
        else folder / "chunks" / chunk_hash[:2] / chunk_hash
        for folder in installation.system.storage_dir.glob("nodes/*")
    ]


def copies(installation: Installation, chunk: bytes) -> list[Any]:
    """Look up the copies of a chunk in the directories of the nodes, without the code under test."""
    return [place for place in places(installation, chunk) if place.exists()]


def bytes_of(label: str, size: int) -> bytes:
    """Return ``size`` random bytes: always the same for one label, and different for another label."""
    return random.Random(label).randbytes(size)


def log_of(system: System, program: str) -> str:
    """Return the log of a program, or ``""`` if it has written no line yet."""
    log = Path(system.storage_dir) / "logs" / f"{program}.log"
    return log.read_text() if log.exists() else ""
