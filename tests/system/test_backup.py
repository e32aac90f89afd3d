"""A backup of a running installation, restored into an empty directory, by the commands that an operator types."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.journal import Journal, Outcome
from tests.faults.objects_at_work import body
from tests.support.installation import bytes_of
from tests.support.system import PROJECT, System, wait_until

pytestmark = pytest.mark.system


def manage(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=PROJECT, env=system.environment, capture_output=True, text=True
    )


def work_on_objects(system: System, call: str) -> str:
    """Call a function of ``objects_at_work`` inside the system; return what it prints."""
    code = f"from tests.faults.objects_at_work import *; {call}"
    done = manage(system, "shell", "--no-imports", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def target() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="occ-backups-")
    yield folder
    shutil.rmtree(folder)


def test_a_backup_of_a_healthy_installation_is_restored_elsewhere(
    make_system: Callable[..., System], target: str
) -> None:
    system = make_system()
    system.start()
    journal = Journal(system.base_url)
    attempts = [journal.upload(bytes_of(f"file {number}", 300_000), f"file {number}") for number in range(3)]
    assert {attempt.status for attempt in attempts} == {201}
    assert work_on_objects(system, "put('a/key', 'object')") == ""

    reports: list[str] = []
    wait_until(lambda: _is_healthy(system, reports), 60, lambda: reports[-1])  # A program may still be loading.
    assert "ok       durability" in reports[-1]

    taken = manage(system, "backup", target)
    assert "is complete" in taken.stdout, taken.stderr
    system.stop()

    other = make_system("restored")
    restored = manage(other, "restore", target)
    assert restored.returncode == 0, restored.stderr
    assert "volumes made             node_000" in restored.stdout
    assert (other.storage_dir / "secret").read_text() == (system.storage_dir / "secret").read_text()
    other.start()
    journal = Journal(other.base_url)
    for attempt in attempts:
        assert journal.download(attempt.file_hash).outcome is Outcome.ACKNOWLEDGED
    state = json.loads(work_on_objects(other, "print_state()"))
    assert state["objects"] == {"a/key": hashlib.sha256(body("object")).hexdigest()}
    assert not Path(other.storage_dir / "restoring").exists()


def _is_healthy(system: System, reports: list[str]) -> bool:
    report = manage(system, "doctor")
    reports.append(report.stdout + report.stderr)
    return report.returncode == 0
