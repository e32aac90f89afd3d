"""An earlier copy of the database directory is put back and used for a while. Then the newer database is put back.

Files that were acknowledged under either database can be read whenever that database is in use. A database neither
condemns nor reclaims chunks that it does not know, until an operator adopts the volumes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.journal import Attempt, Outcome
from tests.support.installation import PATIENCE, Installation, bytes_of
from tests.support.system import PROJECT, wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

SIZE = 100_000


class Databases:
    """Copies of the database directory of a stopped installation."""

    def __init__(self, installation: Installation) -> None:
        self.system = installation.system
        self.folder = self.system.storage_dir / "postgres"

    def keep(self, name: str) -> None:
        """Stop the installation, and copy the directory."""
        self.system.stop()
        shutil.copytree(self.folder, self._copy(name), dirs_exist_ok=False)

    def put_back(self, name: str) -> None:
        """Stop the installation, put a copy in the place of the directory, and start the installation again."""
        self.system.stop()
        shutil.rmtree(self.folder)
        shutil.copytree(self._copy(name), self.folder)
        self.system.start()

    def _copy(self, name: str) -> Path:
        return self.system.storage_dir / f"{name}.copy"


def upload(installation: Installation, label: str) -> Attempt:
    attempt = installation.journal.upload(bytes_of(label, SIZE), label)
    assert attempt.status == 201, attempt
    return attempt


def manage(installation: Installation, *arguments: str) -> str:
    """Run a command of ``manage.py`` and return its output."""
    ran = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=installation.system.environment,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def tidy(installation: Installation) -> None:
    """Have all nodes audited. Reclaim also runs all the time, without a grace period, unless the service refuses it."""
    manage(installation, "audit")


def require_all(installation: Installation, attempts: list[Attempt]) -> None:
    for attempt in attempts:
        download = installation.journal.download(attempt.file_hash)
        assert download.outcome is Outcome.ACKNOWLEDGED, (attempt, download)


def troubles(installation: Installation) -> list[str]:
    _, health = installation.journal.ask("/health")
    return list(health.get("degraded", []))


@pytest.mark.parametrize("since", ["uploads", "uploads and deletions", "uploads, deletions and reclaim"])
def test_nothing_is_lost_that_one_of_two_databases_knows(
    make_installation: Callable[..., Installation], since: str
) -> None:
    installation = make_installation(RECLAIM_GRACE="0", CHUNK_SIZE="16384")
    databases = Databases(installation)
    first = [upload(installation, f"first {number}") for number in range(4)]
    databases.keep("older")

    installation.system.start()
    late = [upload(installation, f"late {number}") for number in range(4)]
    if "deletions" in since:
        installation.journal.delete(first.pop().file_hash)
    if "reclaim" in since:
        manage(installation, "reclaim")
    databases.keep("newer")

    databases.put_back("older")
    wait_until(lambda: "nothing is removed until the newer one is back" in installation.system.output(), PATIENCE)
    wait_until(lambda: any("manage.py adopt" in words for words in troubles(installation)), PATIENCE)
    diverged = [upload(installation, f"diverged {number}") for number in range(4)]
    tidy(installation)
    assert "does not know" in manage(installation, "adopt", "--dry-run")
    require_all(installation, [*first, *diverged])
    databases.keep("older, later")

    databases.put_back("newer")
    wait_until(lambda: any("manage.py adopt" in words for words in troubles(installation)), PATIENCE)
    tidy(installation)
    require_all(installation, [*first, *late])

    databases.put_back("older, later")
    require_all(installation, [*first, *diverged])

    databases.put_back("newer")
    manage(installation, "adopt", "--keep")
    wait_until(lambda: not any("manage.py adopt" in words for words in troubles(installation)), PATIENCE)
    require_all(installation, [*first, *late])
