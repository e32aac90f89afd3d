"""One volume of packs for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.volumes import PackVolume
from tests.support.packs import IDENTITY, opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "volume"


@pytest.fixture
def volume(root: Path) -> PackVolume:
    volume = opened(root)
    volume.create(IDENTITY)
    return volume
