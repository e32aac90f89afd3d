"""What a volume of packs has after a crash, after a power cut, and with an index that is not its own."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storage.exceptions import ForeignVolume, ReplicaMissing, VolumeOffline
from storage.volumes import Identity, PackVolume, Trashed
from storage.volumes.packs import recovery
from storage.volumes.packs.pack_file import Pack
from storage.volumes.packs.records import DATA, Codec, encode
from tests.support.packs import closed, copy_of, damage, failing, hashes, named, opened, packs, place, without_index

OTHER = Identity("cluster", "node_001", "another node")


def index_files(root: Path, to: Path) -> None:
    """Copy the index as it lies on the disk now."""
    to.mkdir(exist_ok=True)
    for path in root.glob("index.sqlite*"):
        shutil.copy(path, to)


def put_index(stored: Path, root: Path) -> None:
    without_index(root)
    for path in stored.iterdir():
        shutil.copy(path, root)


# -- torn tails ------------------------------------------------------------


@pytest.mark.parametrize("zeros", [False, True], ids=["cut", "zeros"])
def test_a_record_that_was_torn_at_any_byte_is_cut_off_and_the_others_stay(
    volume: PackVolume, root: Path, tmp_path: Path, zeros: bool
) -> None:
    """The index has lost the last record, whose write was torn at a byte.

    The pack ends at this byte, or has zeros behind it.
    """
    first, last = named("first"), named("last", 300)
    volume.write(dict([first]))
    index_files(root, tmp_path / "index")
    volume.write(dict([last]))
    path, start, length = place(root, last[0])
    whole = path.read_bytes()
    for torn in [*range(128 + 300 + 1), *range(128 + 301, length, 97)]:
        copy = copy_of(root, tmp_path / "copy")
        put_index(tmp_path / "index", copy)
        part = whole[: start + torn]
        (copy / "packs" / path.name).write_bytes(part + bytes(len(whole) - len(part)) if zeros else part)
        found = opened(copy)
        present = found.sizes([first[0], last[0]])
        assert present[0] == len(first[1]), torn
        assert found.read(first[0]) == first[1], torn
        if present[1] is not None:
            assert found.read(last[0]) == last[1], torn
            assert zeros and torn >= 128 + 300, torn
        assert not list(found.leftovers())
        found.write(dict([named("next")]))
        assert found.read(first[0]) == first[1]


def test_of_a_portion_the_records_behind_a_torn_one_are_taken_in(
    volume: PackVolume, root: Path, tmp_path: Path
) -> None:
    chunks = [named(f"{i}") for i in range(5)]
    index_files(root, tmp_path / "index")
    volume.write(dict(chunks))
    damage(root, chunks[2][0])
    closed(volume)
    put_index(tmp_path / "index", root)
    assert hashes(opened(root)) == {chunk_hash for chunk_hash, _ in chunks} - {chunks[2][0]}


def test_a_tail_that_cannot_be_synced_does_not_count(
    volume: PackVolume, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync, the bytes may be in memory only. Until the tail is durable the volume is offline."""
    name, data = named("last")
    index_files(root, tmp_path / "index")
    volume.write({name: data})
    closed(volume)
    put_index(tmp_path / "index", root)
    with monkeypatch.context() as broken, pytest.raises(VolumeOffline):
        broken.setattr(os, "fdatasync", failing(errno.EIO))
        opened(root).read(name)
    assert opened(root).read(name) == data


def test_a_chunk_that_looks_like_a_record_is_not_taken_for_one(volume: PackVolume, root: Path, tmp_path: Path) -> None:
    """A client may choose any bytes. Behind a damaged header, only a record whose bytes have the right hash counts."""
    wolf = named("wolf")
    volume.write(dict([wolf]))
    forged = b"".join(encode(wolf[0], Codec.RAW, b"wrong bytes", 11))  # Header and CRC are right, the hash is not.
    data = bytes(4096 - 128) + forged + named("sheep", 20_000)[1]
    index_files(root, tmp_path / "index")
    name = hashlib.sha256(data).hexdigest()
    volume.write({name: data})
    pack, start, _ = place(root, name)
    with pack.open("r+b") as file:  # The header of the outer record is damaged.
        file.seek(start)
        file.write(b"torn")
    closed(volume)
    put_index(tmp_path / "index", root)
    found = opened(root)
    assert found.read(wolf[0]) == wolf[1]
    assert hashes(found) == {wolf[0]}


# -- power cuts ------------------------------------------------------------


def test_whatever_a_power_cut_takes_from_the_index_acknowledged_replicas_are_found(
    volume: PackVolume, root: Path, tmp_path: Path
) -> None:
    """A power cut may take all changes of the index after the last one that was synced.

    The packs are copied after each verb, and a torn append is put behind them. Each copy is opened with every state of
    the index since its last sync. Only a verb that changes the state of a record, such as ``trash``, syncs the index.
    """
    chunks = [named(f"{i}", 1000 + 500 * i) for i in range(6)]
    one, two, three, four, five, six = (chunk_hash for chunk_hash, _ in chunks)
    data = dict(chunks)
    steps: list[tuple[bool, Callable[[], object]]] = [
        (False, lambda: volume.write({one: data[one], two: data[two]})),
        (False, lambda: volume.write({three: data[three]})),
        (True, lambda: volume.trash(one, "t")),
        (False, lambda: volume.write({four: data[four]})),
        (False, lambda: volume.write({five: data[five]})),
        (False, lambda: volume.write({four: data[four]})),
        (True, lambda: volume.purge(Trashed(one, "t"))),
        (True, lambda: volume.quarantine(two, "q")),
        (False, lambda: volume.write({six: data[six]})),
    ]
    live: list[set[str]] = [set()]
    index_files(root, tmp_path / "index-0")
    synced = [0]
    for number, (durable, verb) in enumerate(steps, 1):
        verb()
        live.append(hashes(volume))
        index_files(root, tmp_path / f"index-{number}")
        synced.append(number if durable else synced[-1])
        copy_of(root, tmp_path / f"packs-{number}")
    seen = 0
    for number in range(1, len(steps) + 1):
        for index in range(synced[number], number + 1):
            copy = copy_of(tmp_path / f"packs-{number}", tmp_path / "copy")
            put_index(tmp_path / f"index-{index}", copy)
            with packs(copy)[0].open("ab") as torn:
                torn.write(b"".join([b"OCCR", data[six][:700]]))
            found = opened(copy)
            assert hashes(found) == live[number], f"acknowledged, but not found: step {number}, index of {index}"
            for chunk_hash in live[number]:
                assert found.read(chunk_hash) == data[chunk_hash]
            seen += 1
    assert seen > len(steps)


# -- a lost index ----------------------------------------------------------


@pytest.fixture
def busy(volume: PackVolume) -> dict[str, bytes]:
    """A volume with replicas, one in the trash, one in quarantine, one purged, and one that was written twice."""
    chunks = [named(f"{i}", 3000 + 3000 * i) for i in range(8)]
    volume.write(dict(chunks[:5]))
    volume.write(dict(chunks[5:]))
    volume.write(dict(chunks[:1]))
    volume.trash(chunks[1][0], "token")
    volume.quarantine(chunks[2][0], "suspect")
    volume.trash(chunks[3][0], "gone")
    volume.purge(Trashed(chunks[3][0], "gone"))
    return dict(chunks)


def contents(volume: PackVolume) -> object:
    return hashes(volume), set(volume.trashed()), sorted(volume.leftovers())


def test_an_index_that_is_gone_is_made_again_with_all_states(
    volume: PackVolume, root: Path, busy: dict[str, bytes]
) -> None:
    before = contents(volume)
    without_index(root)
    for found in (volume, opened(root)):
        assert contents(found) == before
        for chunk_hash in hashes(found):
            assert found.read(chunk_hash) == busy[chunk_hash]
    suspect = list(busy)[2]
    volume.acquit(suspect, "suspect")
    assert volume.read(suspect) == busy[suspect]


@pytest.mark.parametrize("damaged", [0, 1])
def test_of_two_records_of_a_chunk_the_whole_one_counts(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch, damaged: int
) -> None:
    """The first record was not punched. The order of the packs says nothing about the order of the records."""
    name, data = named("twice")
    monkeypatch.setattr(Pack, "punch", failing(errno.EIO))
    monkeypatch.setattr(recovery, "UNSYNCED", 0)  # Both records are older than the last sync.
    volume.write({name: data})
    opened(root).write({name: data})
    with packs(root)[damaged].open("r+b") as pack:
        pack.seek(4096 + DATA)
        pack.write(b"damage")
    without_index(root)
    assert opened(root).read(name) == data


@pytest.mark.parametrize("content", [b"", b"no database", bytes(40_000)])
def test_an_index_that_is_no_database_is_made_again(
    volume: PackVolume, root: Path, busy: dict[str, bytes], content: bytes
) -> None:
    before = contents(volume)
    without_index(root)
    (root / "index.sqlite").write_bytes(content)
    assert contents(opened(root)) == before


def test_an_index_that_turns_out_to_be_damaged_never_says_absent(
    volume: PackVolume, root: Path, busy: dict[str, bytes]
) -> None:
    before = contents(volume)
    closed(volume)  # The last connection brings the log into the database.
    index = root / "index.sqlite"
    whole = index.read_bytes()
    for page in range(1, len(whole) // 4096):
        index.write_bytes(whole[: page * 4096] + b"\xaa" * 4096 + whole[(page + 1) * 4096 :])
        found = opened(root)
        for _ in range(3):
            for chunk_hash in [*hashes_or_offline(found)]:
                try:
                    assert found.read(chunk_hash) == busy[chunk_hash]
                except VolumeOffline:
                    continue
        assert contents_at_last(opened(root)) == before, page
        closed(found)


def contents_at_last(volume: PackVolume) -> object:
    """Return the contents of the volume. The first calls may find the damage, and raise VolumeOffline."""
    for _ in range(3):
        try:
            return contents(volume)
        except VolumeOffline:
            continue
    return contents(volume)


def hashes_or_offline(volume: PackVolume) -> set[str]:
    try:
        return hashes(volume)
    except VolumeOffline:
        return set()


def test_the_index_of_yesterday_is_not_believed(
    volume: PackVolume, root: Path, busy: dict[str, bytes], tmp_path: Path
) -> None:
    """Since yesterday a replica was purged, one was trashed, and one was written."""
    closed(volume)
    index_files(root, tmp_path / "yesterday")
    four, five = list(busy)[4], list(busy)[5]
    volume.trash(four, "today")
    volume.purge(Trashed(four, "today"))
    volume.trash(five, "today")
    volume.write(dict([named("today")]))
    before = contents(volume)
    closed(volume)
    put_index(tmp_path / "yesterday", root)
    found = opened(root)
    assert contents(found) == before, "the index of yesterday was believed"
    with pytest.raises(ReplicaMissing):
        found.read(four)


def test_an_index_of_yesterday_that_only_lacks_writes_is_brought_up_to_date(
    volume: PackVolume, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.write(dict([named("yesterday")]))
    index_files(root, tmp_path / "yesterday")
    volume.write(dict([named("today")]))
    closed(volume)
    put_index(tmp_path / "yesterday", root)
    monkeypatch.setattr(recovery, "rebuild", None)  # The index is not made again.
    assert hashes(opened(root)) == {named("yesterday")[0], named("today")[0]}


def test_a_pack_that_is_gone_takes_its_replicas_with_it(volume: PackVolume, root: Path) -> None:
    volume.write(dict([named("lost")]))
    packs(root)[0].unlink()
    assert volume.read(named("lost")[0]) == b"", "the bytes are bad: a worker judges that"
    assert hashes(opened(root)) == set()


# -- another volume's index and packs --------------------------------------


@pytest.fixture
def two(volume: PackVolume, root: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    other = PackVolume(tmp_path / "other", OTHER)
    other.create(OTHER)
    volume.write(dict([named("mine")]))
    other.write(dict([named("theirs")]))
    closed(volume, other)
    yield root, tmp_path / "other"


def exchange(one: Path, other: Path, pattern: str) -> None:
    for away, to in [(one, one / "away"), (other, one), (one / "away", other)]:
        to.mkdir(exist_ok=True)
        for path in list(away.glob(pattern)):
            path.rename(to / path.name)
    (one / "away").rmdir()


def test_the_index_of_another_volume_is_not_believed(two: tuple[Path, Path]) -> None:
    exchange(*two, "index.sqlite*")
    assert hashes(opened(two[0])) == {named("mine")[0]}
    assert hashes(opened(two[1], OTHER)) == {named("theirs")[0]}


def test_packs_of_another_volume_are_refused(two: tuple[Path, Path]) -> None:
    exchange(*two, "packs")
    for volume in (opened(two[0]), opened(two[1], OTHER)):
        with pytest.raises(ForeignVolume):
            volume.sizes([named("mine")[0]])
    exchange(*two, "packs")
    assert opened(two[0]).read(named("mine")[0]) == named("mine")[1]


def test_index_and_packs_of_another_volume_are_refused(two: tuple[Path, Path]) -> None:
    exchange(*two, "packs")
    exchange(*two, "index.sqlite*")
    for volume in (opened(two[0]), opened(two[1], OTHER)):
        with pytest.raises(ForeignVolume):
            volume.read(named("theirs")[0])


def test_volumes_that_change_places_are_not_taken_for_each_other(two: tuple[Path, Path]) -> None:
    """A volume stays open between verbs, so each verb must notice that its directory is another one now (RACES 20)."""
    mine, theirs = opened(two[0]), opened(two[1], OTHER)
    assert (hashes(mine), hashes(theirs)) == ({named("mine")[0]}, {named("theirs")[0]})
    two[0].rename(two[0].with_name("between"))
    with pytest.raises(VolumeOffline):
        mine.write(dict([named("nowhere")]))
    two[1].rename(two[0])
    two[0].with_name("between").rename(two[1])
    for volume in (mine, theirs):
        with pytest.raises(ForeignVolume):
            volume.write(dict([named("nowhere")]))
        with pytest.raises(ForeignVolume):
            volume.sizes([named("mine")[0]])
    assert hashes(opened(two[1])) == {named("mine")[0]}
    assert hashes(opened(two[0], OTHER)) == {named("theirs")[0]}
    assert opened(two[0], OTHER).read(named("theirs")[0]) == named("theirs")[1]


# -- an index that has lost rows -------------------------------------------


def test_a_replica_that_the_index_has_lost_is_taken_back_and_not_discarded(volume: PackVolume, root: Path) -> None:
    one, two = named("one"), named("two")
    volume.write(dict([one, two]))
    with closing(sqlite3.connect(root / "index.sqlite")) as index, index:
        index.execute("DELETE FROM record WHERE hash = ?", (bytes.fromhex(one[0]),))
    assert hashes(volume) == {two[0]}
    for leftover in list(volume.leftovers()):
        assert volume.discard(leftover) == 0
    assert hashes(volume) == {one[0], two[0]}
    assert volume.read(one[0]) == one[1]
    assert list(volume.leftovers()) == []
