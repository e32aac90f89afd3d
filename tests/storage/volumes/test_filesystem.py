from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from storage.exceptions import ForeignVolume, VolumeFull, VolumeOffline
from storage.volumes import FilesystemVolume, Identity

IDENTITY = Identity("cluster", "node_000", "node")
DATA = b"x" * 5000
HASH = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def volume(tmp_path: Path) -> FilesystemVolume:
    volume = FilesystemVolume(tmp_path / "volume", IDENTITY)
    volume.create(IDENTITY)
    return volume


def test_a_write_is_synced_before_it_has_its_name_and_its_name_before_it_returns(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    rename, fsync = os.rename, os.fsync

    def traced_rename(*args: object, **kwargs: object) -> None:
        calls.append("rename")
        rename(*args, **kwargs)  # type: ignore[arg-type]

    def traced_fsync(descriptor: int) -> None:
        calls.append("fsync directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "fsync file")
        fsync(descriptor)

    monkeypatch.setattr(os, "rename", traced_rename)
    monkeypatch.setattr(os, "fsync", traced_fsync)
    neighbour = HASH[:2] + "0" * 62
    elsewhere = f"{(int(HASH[:2], 16) + 1) % 256:02x}" + "0" * 62
    volume.write({HASH: DATA, neighbour: DATA, elsewhere: DATA})
    assert calls == ["fsync file"] * 3 + ["rename"] * 3 + ["fsync directory"] * 2


def test_removal_is_durable_on_both_sides_of_the_rename(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.write({HASH: DATA})
    synced: list[str] = []
    fsync = os.fsync

    def traced(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", traced)
    volume.trash(HASH, "t")
    assert set(synced) == {"trash", HASH[:2]}


@pytest.mark.parametrize("failing", ["write", "fsync", "rename"])
def test_a_failed_write_leaves_nothing_behind(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch, pytest.raises(VolumeOffline):
        patch.setattr(os, failing, fail)
        volume.write({HASH: DATA})
    assert volume.sizes([HASH]) == [None]
    assert list((volume.root / "chunks" / HASH[:2]).iterdir()) == []


def test_of_replicas_that_are_written_together_none_is_left_in_part(
    volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{i:02x}" * 32 for i in range(5)]
    write = os.write
    monkeypatch.setattr(
        os, "write", lambda descriptor, data: write(descriptor, data) if written(volume) < 3 else 1 // 0
    )
    with pytest.raises(ZeroDivisionError):
        volume.write(dict.fromkeys(names, DATA))
    assert volume.sizes(names) == [None] * 5
    assert list(volume.leftovers()) == []


def written(volume: FilesystemVolume) -> int:
    return sum(path.stat().st_size > 0 for path in (volume.root / "chunks").glob("*/*"))


def test_a_full_disk_is_told_from_a_broken_one(volume: FilesystemVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(VolumeFull):
        volume.write({HASH: DATA})


def test_a_disk_that_unmounts_is_not_recreated_on_the_disk_below(volume: FilesystemVolume) -> None:
    shutil.rmtree(volume.root)
    volume.root.mkdir()
    with pytest.raises(ForeignVolume):
        volume.write({HASH: DATA})
    assert list(volume.root.iterdir()) == []


def test_a_folder_with_strange_content_is_not_made_a_volume(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ForeignVolume):
        FilesystemVolume(tmp_path, IDENTITY).create(IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_creation_that_was_interrupted_is_completed(tmp_path: Path) -> None:
    (tmp_path / "chunks" / "00").mkdir(parents=True)
    volume = FilesystemVolume(tmp_path, IDENTITY)
    with pytest.raises(ForeignVolume):
        volume.write({HASH: DATA})
    volume.create(IDENTITY)
    volume.write({HASH: DATA})
    assert volume.read(HASH) == DATA


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": 2}', b"\xff\xfe"])
def test_an_identity_that_cannot_be_read_is_foreign(volume: FilesystemVolume, content: bytes) -> None:
    (volume.root / "identity").write_bytes(content)
    with pytest.raises(ForeignVolume):
        volume.write({HASH: DATA})


def test_what_a_killed_writer_left_is_not_a_replica(volume: FilesystemVolume) -> None:
    (volume.root / "chunks" / "ab" / ".tmp-leftover").write_bytes(b"half")
    assert list(volume.replicas()) == []
