"""A volume on a full file system, and a volume in a process that lacks file descriptors or memory."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from storage.exceptions import VolumeFull, VolumeOffline, VolumeReadOnly, VolumeUnasked
from storage.volumes import FilesystemVolume, Identity, Lane, identity_file, spare
from tests.contract.test_volume import fill_file_system, token

IDENTITY = Identity("cluster", "node_000", "node")
DATA = b"x" * 5000
HASH = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def volume(tmp_path: Path) -> FilesystemVolume:
    volume = FilesystemVolume(tmp_path / "volume", IDENTITY)
    volume.create(IDENTITY)
    volume.write({HASH: DATA})
    return volume


def failing(error: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    return fail


def older(volume: FilesystemVolume) -> None:
    """Make the volume look as an older version left it: without a spare, and with an identity file shorter than a
    sector.
    """
    (volume.root / "spare").unlink()
    fields = {"cluster": "cluster", "node_id": "node_000", "node": "node", "generation": 9}
    (volume.root / "identity").write_text(json.dumps({"format": 1, **fields}))


def test_a_new_volume_has_a_spare_of_real_blocks_and_an_identity_of_one_sector(volume: FilesystemVolume) -> None:
    found = (volume.root / "spare").stat()
    assert found.st_size == spare.SIZE
    assert found.st_blocks * 512 >= spare.SIZE
    assert (volume.root / "identity").stat().st_size == 512


def test_the_spare_is_used_up_and_comes_back_when_there_is_room(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        fill_file_system(volume.root, full)
        volume.trash(HASH, "t")
        assert not (volume.root / "spare").exists()
        with pytest.raises(VolumeFull):
            volume.keep_spare()
    volume.keep_spare()
    assert (volume.root / "spare").stat().st_size == spare.SIZE


def test_a_spare_that_was_made_in_part_is_completed(volume: FilesystemVolume) -> None:
    (volume.root / "spare").write_bytes(b"half")
    volume.keep_spare()
    assert (volume.root / "spare").stat().st_size == spare.SIZE


def test_without_a_spare_a_removal_that_needs_room_changes_nothing(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    (volume.root / "spare").unlink()
    monkeypatch.setattr(os, "rename", failing(errno.ENOSPC))
    with pytest.raises(VolumeFull):
        volume.trash(HASH, "t")
    assert volume.read(HASH) == DATA


def test_other_failures_of_a_rename_cost_no_spare(volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rename", failing(errno.EIO))
    with pytest.raises(VolumeOffline):
        volume.trash(HASH, "t")
    assert (volume.root / "spare").exists()


def test_an_older_volume_opens_and_gets_a_spare_and_a_full_sector(volume: FilesystemVolume) -> None:
    older(volume)
    assert volume.identity() == IDENTITY.at(token(9))
    volume.keep_spare()
    volume.set_generations([token(10)])
    assert volume.identity() == IDENTITY.at(token(10))
    assert (volume.root / "identity").stat().st_size == identity_file.SIZE


def test_an_older_identity_is_overwritten_too(volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity file grows within the block that it already has."""
    older(volume)
    monkeypatch.setattr("storage.volumes.directory.write_durably", failing(errno.EDQUOT))
    volume.set_generations([token(10)])
    assert volume.identity() == IDENTITY.at(token(10))


def test_an_identity_that_was_not_written_as_a_whole_is_a_failure(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.volumes.directory.write_durably", failing(errno.ENOSPC))
    monkeypatch.setattr(os, "pwrite", lambda *_: 100)
    with pytest.raises(VolumeFull):
        volume.set_generations([token(10)])


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_a_process_lacks_says_nothing_about_the_disk(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    lane = Lane(volume)
    with monkeypatch.context() as lacking:
        lacking.setattr(os, "open", failing(error))
        for verb in (volume.identity, volume.space, lambda: volume.read(HASH), lambda: volume.write({HASH: DATA})):
            with pytest.raises(VolumeUnasked):
                lane.call(verb)
    assert lane.breaker.is_closed
    assert lane.call(volume.read, HASH) == DATA


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_write_for_which_there_is_no_room_is_told_as_such(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    monkeypatch.setattr(os, "write", failing(error))
    with pytest.raises(VolumeFull):
        volume.write({"0" * 64: DATA})


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_removals_from_what_is_read_only_open_no_breaker(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    lane = Lane(volume)
    for name in ("rename", "unlink"):
        monkeypatch.setattr(os, name, failing(error))
    for _ in range(3):
        with pytest.raises(VolumeReadOnly):
            lane.call(volume.trash, HASH, "t")
        with pytest.raises(VolumeReadOnly):
            lane.call(volume.discard, f"{HASH[:2]}/{HASH}")
        with pytest.raises(VolumeReadOnly):
            lane.call(volume.set_generations, [token(3)])
    assert lane.call(volume.read, HASH) == DATA
