"""The settings of a production installation, as ``manage.py check --deploy`` sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PRODUCTION = {"SECRET_KEY": "0123456789abcdef" * 4, "AUTH_REQUIRED": "true", "ALLOWED_HOSTS": "files.example.org"}


def manage(storage_dir: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if name not in ("SECRET_KEY", "DEBUG")}
    ours |= {"STORAGE_DIR": str(storage_dir), **environment}
    return subprocess.run(
        [sys.executable, "manage.py", *words], cwd=PROJECT, env=ours, capture_output=True, text=True, check=False
    )


def test_a_production_installation_is_without_warnings(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)
    assert done.returncode == 0, done.stderr


def test_what_is_right_on_ones_own_machine_only_is_named(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", "--deploy", DEBUG="true")
    for warning in ("storage.W002", "storage.W003", "security.W009", "security.W018"):
        assert warning in done.stderr


def test_no_program_starts_without_a_secret(tmp_path: Path) -> None:
    done = manage(tmp_path, "run", "api")
    assert done.returncode == 1
    assert done.stderr == "occ-storage: there is no secret yet: run `manage.py prepare` first, or set SECRET_KEY\n"


def test_a_default_secret_is_refused(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", SECRET_KEY="changeme")
    assert done.returncode == 1
    assert "SECRET_KEY can be guessed" in done.stderr
