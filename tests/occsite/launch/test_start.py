"""Starts that are refused before any program runs, with a message that says what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from occsite.launch.runtime import runtime_dir, scratch_dir
from occsite.launch.start import serve
from storage.conf import Configuration
from storage.exceptions import ConfigurationError
from tests.support.system import PROJECT, free_port


@pytest.fixture
def configuration(tmp_path: Path) -> Iterator[Configuration]:
    yield Configuration.from_environment({"STORAGE_DIR": str(tmp_path / "state"), "PORT": str(free_port())})
    assert not runtime_dir(tmp_path / "state").exists()
    assert not scratch_dir(tmp_path / "state").exists()


def test_a_missing_command_is_named(configuration: Configuration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigurationError, match=r"setpriv is missing; install it \(Debian's package util-linux\)"):
        serve(configuration)


def test_a_full_disk_is_named(configuration: Configuration, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("occsite.launch.start.make_secret", full)
    with pytest.raises(ConfigurationError, match="No space left on device; mend that and start again"):
        serve(configuration)


def test_a_lost_secret_is_named(configuration: Configuration) -> None:
    (configuration.storage_dir / "postgres").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"secret is gone, .*; put it back"):
        serve(configuration)


def test_a_file_in_the_place_of_the_folder_is_named(configuration: Configuration) -> None:
    configuration.storage_dir.write_text("")
    with pytest.raises(ConfigurationError, match=r"STORAGE_DIR cannot be made: .*; choose another folder"):
        serve(configuration)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "manage.py", tmp_path)
    # With -S, Python finds no installed packages, so Django is missing.
    done = subprocess.run([sys.executable, "-S", str(tmp_path / "manage.py"), "serve"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "occ-storage: the package django is not installed; run `make run`, or install requirements.txt\n"
    )
