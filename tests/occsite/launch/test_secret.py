from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from occsite.launch import secret
from storage.exceptions import ConfigurationError
from tests.support.system import PROJECT


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that every user can enter. Other users cannot enter the directories of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_is_told_who_to_be(open_folder: Path) -> None:
    """The default directory lies in ``var``. The first start makes ``var`` so that other users cannot enter it."""
    storage_dir = open_folder / "var" / "occ_storage"
    storage_dir.mkdir(parents=True)
    (open_folder / "var").chmod(0o700)
    secret.make_secret(storage_dir)
    script = (
        "import os; from pathlib import Path; from occsite.launch.secret import read_secret\n"
        f"os.setuid(65534); read_secret(Path({str(storage_dir)!r}))"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True)
    assert f"{storage_dir} belongs to the user root, and this is run by nobody: be root" in found.stderr


def test_a_secret_that_cannot_be_read_for_another_reason_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(ConfigurationError, match="the secret cannot be read"):
        secret.read_secret(tmp_path)
