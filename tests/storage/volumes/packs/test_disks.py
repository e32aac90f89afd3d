"""A volume of packs on disks that fail, are full, or can only be read."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from storage.exceptions import VolumeFull, VolumeOffline, VolumeReadOnly
from storage.volumes import Lane, PackVolume, Trashed
from storage.volumes.packs import connection
from tests.support.packs import IDENTITY, closed, failing, hashes, named, opened, packs

ONE, TWO = named("one"), named("two", 70_000)


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
def test_a_failed_write_leaves_nothing_and_the_next_one_takes_another_pack(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    volume.write(dict([ONE]))
    size = packs(root)[0].stat().st_size
    with monkeypatch.context() as broken, pytest.raises(VolumeOffline):
        broken.setattr(os, call, failing(errno.EIO))
        volume.write(dict([TWO]))
    assert packs(root)[0].stat().st_size == size
    assert volume.sizes([ONE[0], TWO[0]]) == [len(ONE[1]), None]
    assert list(volume.leftovers()) == []
    volume.write(dict([TWO]))
    assert len(packs(root)) == 2, "a failed sync is not tried again on the same file"
    assert opened(root).read(TWO[0]) == TWO[1]


def test_a_write_that_was_cut_short_is_completed(volume: PackVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda fd, pieces, offset: pwrite(fd, bytes(pieces[0])[:3000], offset))
    volume.write(dict([TWO]))
    assert volume.read(TWO[0]) == TWO[1]


def test_a_full_disk_takes_nothing_and_costs_no_pack(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.write(dict([ONE]))
    for _ in range(3):
        with monkeypatch.context() as full, pytest.raises(VolumeFull):
            full.setattr(os, "pwritev", failing(errno.ENOSPC))
            volume.write(dict([TWO]))
    volume.write(dict([TWO]))
    assert len(packs(root)) == 1
    assert hashes(opened(root)) == {ONE[0], TWO[0]}


def test_removals_on_a_full_disk_take_no_more_and_more_room(volume: PackVolume, root: Path) -> None:
    """An earlier version let the log of the index grow until no room was left, not even for a purge."""
    chunks = dict(named(str(number)) for number in range(100))
    volume.write(chunks)
    log = root / "index.sqlite-wal"
    assert volume._handle is not None
    with volume._handle.index._connection.reading() as session:
        pages = session.execute("PRAGMA page_count").fetchone()[0]
        session.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(VolumeFull):
        volume.write(dict(named(f"more {number}") for number in range(200)))
    with volume._handle.index._connection.reading() as session:
        session.execute("PRAGMA max_page_count = 1000000")
    for chunk_hash in chunks:
        assert volume.trash(chunk_hash, "t")
    assert log.stat().st_size < 32 * 4096
    for trashed in list(volume.trashed()):
        assert volume.purge(trashed)
    assert log.stat().st_size < 32 * 4096
    volume.write(chunks)
    assert set(chunks) <= hashes(opened(root))


def test_an_index_that_cannot_be_written_leaves_nothing_visible(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.2)
    volume.write(dict([ONE]))
    other = opened(root)
    with closing(sqlite3.connect(root / "index.sqlite", isolation_level=None)) as rude:
        rude.execute("BEGIN IMMEDIATE")
        for verb in (
            lambda: other.write(dict([TWO])),
            lambda: other.trash(ONE[0], "t"),
        ):
            with pytest.raises(VolumeOffline):
                verb()
        assert other.read(ONE[0]) == ONE[1]
        rude.execute("ROLLBACK")
    assert other.read(ONE[0]) == ONE[1]
    other.write(dict([TWO]))
    assert other.read(TWO[0]) == TWO[1]


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this process may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_without_room_is_read_and_emptied(tmp_path: Path) -> None:
    """On a real file system: the index needs room for its log, but the index must also open when there is no room."""
    with mounted(tmp_path / "disk", "size=4m"):
        root = tmp_path / "disk" / "volume"
        volume = opened(root)
        volume.create(IDENTITY)
        stored = {}
        with pytest.raises(VolumeFull):
            for number in range(1000):
                name, data = named(f"{number}", 30_000)
                volume.write({name: data})
                stored[name] = data
        with pytest.raises(OSError, match="No space"), (root / "filler").open("wb") as filler:
            while True:
                filler.write(b"x" * 4096)
                filler.flush()
        closed(volume)
        for found in (volume, opened(root)):  # Only one of the two volumes has the index open at a time.
            assert hashes(found) == set(stored)
            for name, data in stored.items():
                assert found.read(name) == data
            closed(found)
        found = opened(root)
        for name in list(stored)[:20]:
            assert found.trash(name, "t")
        for name in list(stored)[:20]:
            assert found.purge(Trashed(name, "t")) == 30_000
        found.write(dict([ONE]))
        assert found.read(ONE[0]) == ONE[1]


def test_a_read_only_disk_is_read(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=8m"):
        root = tmp_path / "disk" / "volume"
        volume = opened(root)
        volume.create(IDENTITY)
        volume.write(dict([ONE]))
        closed(volume)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        found = opened(root)
        assert found.read(ONE[0]) == ONE[1]
        assert found.sizes([ONE[0], TWO[0]]) == [len(ONE[1]), None]
        assert not found.space().writable
        lane = Lane(found)
        for _ in range(3):
            with pytest.raises(VolumeReadOnly):
                lane.call(found.write, dict([TWO]))
            with pytest.raises(VolumeReadOnly):
                lane.call(found.trash, ONE[0], "t")
        assert lane.breaker.is_closed


def test_a_read_only_disk_with_records_that_nobody_has_indexed_does_not_say_absent(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=8m"):
        root = tmp_path / "disk" / "volume"
        volume = opened(root)
        volume.create(IDENTITY)
        volume.write(dict([ONE]))
        closed(volume)
        with packs(root)[0].open("ab") as tail:
            tail.write(bytes(4096))
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        with pytest.raises(VolumeOffline):
            opened(root).read(TWO[0])
