from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from storage.exceptions import VolumeOffline, VolumeReadOnly
from storage.volumes import FilesystemVolume, Identity, Lane

IDENTITY = Identity("11111111-cluster", "node_000", "22222222-node")
DATA = b"some bytes"
NAME = "e04fc3bdaf5e4a1e2e9a4a3b8b1d3b1c0e0b8a3f5ce0c2d7a8d4a6b3e1f2c3d4"


@pytest.fixture
def volume(tmp_path: Path) -> FilesystemVolume:
    found = FilesystemVolume(tmp_path / "volume", IDENTITY)
    found.create(IDENTITY)
    return found


def failing(error: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(error, "as a mount option would have it")

    return fail


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_volume_that_cannot_be_written_is_still_read(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    volume.write({NAME: DATA})
    lane = Lane(volume)
    monkeypatch.setattr("storage.volumes.filesystem.write_durably", failing(error))
    for _ in range(10):
        with pytest.raises(VolumeReadOnly):
            lane.call(volume.write, {NAME: DATA})
    assert lane.call(volume.read, NAME) == DATA, "the breaker is closed"


def test_a_write_that_fails_otherwise_opens_the_breaker(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.write({NAME: DATA})
    lane = Lane(volume)
    monkeypatch.setattr("storage.volumes.filesystem.write_durably", failing(errno.EIO))
    for _ in range(3):
        with pytest.raises(VolumeOffline):
            lane.call(volume.write, {NAME: DATA})
    assert lane.breaker.is_open
