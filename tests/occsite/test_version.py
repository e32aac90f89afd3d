"""The project, the image and the command show the same version."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from occsite.launch.boot import box, welcome
from storage.conf import VERSION, Configuration

PROJECT = Path(__file__).resolve().parents[2]


def test_the_project_and_the_image_tell_the_same_version() -> None:
    assert tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    assert f'org.opencontainers.image.version="{VERSION}"' in (PROJECT / "Dockerfile").read_text()


def test_the_command_tells_it() -> None:
    for asked in ("version", "--version"):
        told = subprocess.run([sys.executable, "manage.py", asked], cwd=PROJECT, capture_output=True, text=True)
        assert told.stdout == f"OCC Storage {VERSION}\n"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "off; AUTH_REQUIRED=true switches them on"),
        ({"HOST": "::1"}, "off; AUTH_REQUIRED=true switches them on"),
        ({"HOST": "0.0.0.0"}, "OFF: whoever reaches this port can delete everything; set AUTH_REQUIRED=true"),
        ({"HOST": "occ.example"}, "OFF: whoever reaches this port can delete everything; set AUTH_REQUIRED=true"),
        ({"HOST": "0.0.0.0", "AUTH_REQUIRED": "true"}, "on; make one: .venv/bin/python manage.py keys create NAME"),
    ],
)
def test_a_start_tells_whether_keys_are_on(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    monkeypatch.setattr("sys.executable", str(PROJECT / ".venv/bin/python"))
    assert f"keys      {said}" in welcome("http://127.0.0.1:5000", Configuration.from_environment(environment))


def test_a_frame_fits_its_lines() -> None:
    assert box(["a", "bcd"]) == ["+-----+", "| a   |", "| bcd |", "+-----+"]
