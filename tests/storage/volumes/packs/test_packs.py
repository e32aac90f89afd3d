"""Packs, their holes, and what is read from them."""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.exceptions import ReplicaMissing, VolumeOffline
from storage.volumes import PackVolume, Trashed, page_cache
from storage.volumes.packs import handle, recovery
from storage.volumes.packs.pack_file import Pack
from tests.support.packs import IDENTITY, closed, damage, failing, hashes, named, opened, packs, place

ONE, TWO = named("one"), named("two", 70_000)


def blocks(root: Path) -> int:
    """The bytes that the packs take on the disk."""
    return sum(512 * path.stat().st_blocks for path in packs(root))


# -- packs -----------------------------------------------------------------


def test_a_process_appends_to_one_pack_and_another_process_after_it(volume: PackVolume, root: Path) -> None:
    for number in range(5):
        volume.write(dict([named(f"{number}")]))
    closed(volume)
    opened(root).write(dict([ONE]))
    assert len(packs(root)) == 1
    assert opened(root).read(ONE[0]) == ONE[1]


def test_processes_append_to_packs_of_their_own(volume: PackVolume, root: Path) -> None:
    volume.write(dict([ONE]))
    other = opened(root)
    other.write(dict([TWO]))
    assert len(packs(root)) == 2
    assert (volume.read(TWO[0]), other.read(ONE[0])) == (TWO[1], ONE[1])


def test_a_pack_of_full_size_is_sealed_and_goes_with_its_last_record(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "SEALED_AT", 100_000)
    volume.write(dict([ONE]))
    volume.write(dict([TWO]))
    volume.write(dict([named("fills", 50_000)]))
    volume.write(dict([named("the next pack")]))
    first, _, _ = place(root, ONE[0])
    assert len(packs(root)) == 2
    for number, name in enumerate((ONE[0], TWO[0], named("fills", 50_000)[0])):
        assert first.exists(), number
        volume.trash(name, "t")
        volume.purge(Trashed(name, "t"))
    assert not first.exists()
    assert hashes(opened(root)) == {named("the next pack")[0]}


def test_a_purge_gives_the_room_back_at_once(volume: PackVolume, root: Path) -> None:
    volume.write(dict([ONE]))
    before = blocks(root)
    volume.write(dict([TWO]))
    volume.trash(TWO[0], "t")
    assert volume.purge(Trashed(TWO[0], "t")) == len(TWO[1])
    assert blocks(root) <= before
    assert volume.read(ONE[0]) == ONE[1]
    assert list(volume.leftovers()) == []


def test_a_replica_that_is_written_again_leaves_no_room_taken(volume: PackVolume, root: Path) -> None:
    for _ in range(5):
        volume.write(dict([TWO]))
    assert blocks(root) < 2 * len(TWO[1])
    assert list(volume.leftovers()) == []


def test_a_trashed_replica_that_comes_back_replaces_the_newer_one(volume: PackVolume, root: Path) -> None:
    volume.write(dict([TWO]))
    volume.trash(TWO[0], "t")
    volume.write(dict([TWO]))
    assert volume.restore(Trashed(TWO[0], "t"))
    assert volume.read(TWO[0]) == TWO[1]
    assert blocks(root) < 2 * len(TWO[1])


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EIO])
def test_holes_that_cannot_be_punched_now_are_left_to_an_audit(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    volume.write(dict([TWO]))
    volume.trash(TWO[0], "t")
    with monkeypatch.context() as broken:
        broken.setattr(Pack, "punch", failing(error))
        assert volume.purge(Trashed(TWO[0], "t")) == len(TWO[1])
    assert volume.purge(Trashed(TWO[0], "t")) == 0
    (leftover,) = volume.leftovers(packs(root)[0].name[:2])
    other = f"{(int(packs(root)[0].name[:2], 16) + 1) % 256:02x}"
    assert list(volume.leftovers(other)) == []
    assert volume.discard(leftover) >= len(TWO[1])
    assert volume.discard(leftover) == 0
    assert list(volume.leftovers()) == []
    assert blocks(root) == 4096


def test_a_file_system_that_cannot_punch_holes_gets_no_volume(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pack, "punch", failing(errno.EOPNOTSUPP))
    for verb in (opened(root).require_vacant, opened(root).create):
        with pytest.raises(VolumeOffline, match="use a file:// volume"):
            verb(IDENTITY)
    monkeypatch.undo()
    opened(root).create(IDENTITY)


# -- reading ---------------------------------------------------------------


def test_a_damaged_replica_is_read_as_it_is_and_quarantined(volume: PackVolume, root: Path) -> None:
    volume.write(dict([TWO]))
    damage(root, TWO[0])
    assert volume.read(TWO[0], uncached=True) not in (TWO[1], b"")
    assert volume.quarantine(TWO[0], "q") not in (TWO[1], b"", None)
    with pytest.raises(ReplicaMissing):
        volume.read(TWO[0])
    volume.write(dict([TWO]))
    assert volume.read(TWO[0]) == TWO[1]


def test_a_replica_without_its_header_has_no_bytes_and_is_not_missing(volume: PackVolume, root: Path) -> None:
    volume.write(dict([TWO]))
    path, offset, _ = place(root, TWO[0])
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(64))
    assert volume.read(TWO[0]) == b""
    assert volume.read_cached(TWO[0]) is None


def test_a_row_that_leads_to_another_record_has_no_bytes(volume: PackVolume, root: Path) -> None:
    volume.write(dict([ONE, TWO]))
    _, offset, _ = place(root, ONE[0])
    with closing(sqlite3.connect(root / "index.sqlite")) as index, index:
        index.execute("UPDATE record SET place = ? WHERE hash = ?", (offset, bytes.fromhex(TWO[0])))
    assert opened(root).read(TWO[0]) == b""


def test_what_another_process_has_purged_is_not_read_from_memory(volume: PackVolume, root: Path) -> None:
    volume.write(dict([TWO]), keep_cached=[TWO[0]])
    volume.read(TWO[0])
    if volume.read_cached(TWO[0]) is None:
        pytest.skip("neither a local file system nor a kernel that says what it has in memory")
    other = opened(root)
    other.trash(TWO[0], "t")
    other.purge(Trashed(TWO[0], "t"))
    assert volume.read_cached(TWO[0]) is None


def test_memory_keeps_what_is_asked_to_be_kept(volume: PackVolume, root: Path) -> None:
    kept, dropped = named("kept", 400_000), named("dropped", 400_000)
    volume.write(dict([dropped, kept]), keep_cached=[kept[0]])
    pages = {}
    for name in (kept[0], dropped[0]):
        path, offset, length = place(root, name)
        with path.open("rb") as file:
            if not page_cache.is_local(file.fileno()):
                pytest.skip("not a local file system")
            pages[name] = page_cache._pages(file.fileno(), offset, length)
    assert pages[kept[0]] > 90 > pages[dropped[0]]


def test_a_read_learns_the_places_of_the_next_replicas(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "NEIGHBOURS", 2)
    chunks = [named(f"{i}") for i in range(6)]
    volume.write(dict(chunks))
    volume.trash(chunks[2][0], "t")
    reader = opened(root)
    reader.read(chunks[1][0])
    held = reader._handle
    assert held is not None
    assert list(held._places) == [chunks[i][0] for i in (1, 3, 4)]
    for name, data in chunks[3:5]:
        assert reader.read_cached(name) in (data, None)


def test_places_that_are_remembered_and_packs_that_are_open_are_bounded(
    volume: PackVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "REMEMBERED", 3)
    monkeypatch.setattr(handle, "OPEN_PACKS", 2)
    monkeypatch.setattr(recovery, "SEALED_AT", 1)
    chunks = [named(f"{i}") for i in range(6)]
    for chunk in chunks:
        volume.write(dict([chunk]))
    for name, data in chunks:
        assert volume.read(name) == data
    held = volume._handle
    assert held is not None
    assert (len(held._places), len(held._packs)) == (3, 2)


def test_what_was_rescued_from_the_trash_is_not_read_from_memory(volume: PackVolume) -> None:
    volume.write(dict([TWO]), keep_cached=[TWO[0]])
    volume.read(TWO[0])
    volume.trash(TWO[0], "t")
    assert volume.rescue(TWO[0]) == TWO[1]
    assert volume.read_cached(TWO[0]) is None
