"""The project, the image and the command tell the same version."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from occsite.launch.boot import box
from storage.conf import VERSION

PROJECT = Path(__file__).resolve().parents[2]


def test_the_project_and_the_image_tell_the_same_version() -> None:
    assert tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    assert f'org.opencontainers.image.version="{VERSION}"' in (PROJECT / "Dockerfile").read_text()


def test_the_command_tells_it() -> None:
    for asked in ("version", "--version"):
        told = subprocess.run([sys.executable, "manage.py", asked], cwd=PROJECT, capture_output=True, text=True)
        assert told.stdout == f"OCC Storage {VERSION}\n"


def test_a_frame_fits_its_lines() -> None:
    assert box(["a", "bcd"]) == ["+-----+", "| a   |", "| bcd |", "+-----+"]
