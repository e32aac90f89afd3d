"""The contract of every volume. ``MAKERS`` names each implementation, and the tests run against each of them."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.exceptions import ForeignVolume, ReplicaMissing, VolumeFull, VolumeOffline
from storage.volumes import FilesystemVolume, Identity, MemoryVolume, PackVolume, Replica, Trashed, Volume
from storage.volumes.packs.connection import Connection

IDENTITY = Identity("11111111-cluster", "node_000", "22222222-node")
STRANGER = Identity("11111111-cluster", "node_001", "33333333-node")

Maker = Callable[[Identity], Volume]


def filesystem(tmp_path: Path) -> Maker:
    return lambda expected: FilesystemVolume(tmp_path / "volume", expected)


def memory(tmp_path: Path) -> Maker:
    volume = MemoryVolume()

    def make(expected: Identity) -> Volume:
        volume.expected = expected
        return volume

    return make


def packs(tmp_path: Path) -> Maker:
    return lambda expected: PackVolume(tmp_path / "volume", expected)


def compressed_packs(tmp_path: Path) -> Maker:
    return lambda expected: PackVolume(tmp_path / "volume", expected, compress=True)


MAKERS = [filesystem, memory, packs, compressed_packs]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    """Open the one volume of the test with the identity that the caller expects."""
    maker: Maker = request.param(tmp_path)
    return maker


@pytest.fixture
def volume(make: Maker) -> Volume:
    volume = make(IDENTITY)
    volume.create(IDENTITY)
    return volume


@pytest.fixture
def fill(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Fill the volume of the test, so that it has no room for one more byte, file or name."""

    def fill() -> None:
        if isinstance(volume, MemoryVolume):
            volume.capacity = volume.capacity - volume.space().free
        else:
            assert isinstance(volume, FilesystemVolume | PackVolume)
            fill_file_system(volume.root, monkeypatch)

    return fill


def fill_file_system(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make system calls fail as on a full file system.

    A rename, and a change of an index, find a free block only after the spare was removed.
    """
    open_file, pwrite, rename, changing = os.open, os.pwrite, os.rename, Connection.changing

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opening(path: str, flags: int, *rest: int, **names: int) -> int:
        return full() if flags & os.O_CREAT else open_file(path, flags, *rest, **names)

    def pwriting(descriptor: int, data: bytes, offset: int) -> int:
        return full() if offset + len(data) > os.fstat(descriptor).st_size else pwrite(descriptor, data, offset)

    def renaming(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if (root / "spare").exists():
            full()
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def changing_index(index: Connection, *, durable: bool) -> AbstractContextManager[sqlite3.Connection]:
        if (root / "spare").exists():
            full()
        return changing(index, durable=durable)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "pwritev", full)
    monkeypatch.setattr(Connection, "changing", changing_index)
    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(os, "pwrite", pwriting)
    monkeypatch.setattr(os, "rename", renaming)


def chunk(data: bytes = b"some bytes") -> tuple[str, bytes]:
    return hashlib.sha256(data).hexdigest(), data


def token(number: int) -> str:
    """Return the token of a generation: 32 hex digits."""
    return f"{number:032x}"


def test_a_created_volume_carries_its_identity(volume: Volume) -> None:
    assert volume.identity() == IDENTITY


def test_a_place_is_vacant_for_its_own_volume_only(make: Maker, volume: Volume) -> None:
    volume.require_vacant(IDENTITY)
    with pytest.raises(ForeignVolume):
        volume.require_vacant(STRANGER)


def test_asking_for_a_vacant_place_makes_no_volume(make: Maker) -> None:
    nothing = make(IDENTITY)
    nothing.require_vacant(IDENTITY)
    with pytest.raises(VolumeOffline):
        nothing.identity()


def test_creating_again_leaves_the_volume_alone(volume: Volume) -> None:
    chunk_hash, data = chunk()
    volume.write({chunk_hash: data})
    volume.set_generations([token(7)])
    volume.create(IDENTITY)
    assert volume.read(chunk_hash) == data
    assert volume.identity().generations == (token(7),)


def test_a_volume_of_another_node_is_not_taken_over(make: Maker, volume: Volume) -> None:
    with pytest.raises(ForeignVolume):
        volume.create(STRANGER)
    assert volume.identity() == IDENTITY


def test_what_is_not_a_volume_is_offline_not_empty(make: Maker) -> None:
    nothing = make(IDENTITY)
    chunk_hash, data = chunk()
    for verb in (
        nothing.identity,
        lambda: nothing.write({chunk_hash: data}),
        lambda: nothing.sizes([chunk_hash]),
        lambda: nothing.read(chunk_hash),
        lambda: list(nothing.replicas()),
        lambda: nothing.trash(chunk_hash, "t"),
    ):
        with pytest.raises(Exception) as caught:
            verb()
        assert "Missing" not in type(caught.value).__name__
        assert "Offline" in str(type(caught.value).__mro__)


def test_the_identity_is_checked_before_every_change_and_listing(make: Maker, volume: Volume) -> None:
    chunk_hash, data = chunk()
    volume.write({chunk_hash: data})
    foreign = make(STRANGER)
    for verb in (
        lambda: foreign.write(dict([chunk(b"other")])),
        lambda: foreign.sizes([chunk_hash]),
        lambda: foreign.settle(chunk_hash),
        lambda: list(foreign.replicas()),
        lambda: foreign.trash(chunk_hash, "t"),
        lambda: list(foreign.trashed()),
        lambda: foreign.restore(Trashed(chunk_hash, "t")),
        lambda: foreign.purge(Trashed(chunk_hash, "t")),
        lambda: foreign.quarantine(chunk_hash, "t"),
        lambda: foreign.set_generations([token(1)]),
        lambda: foreign.keep_spare(),
        lambda: foreign.read(chunk(b"absent")[0]),
    ):
        with pytest.raises(ForeignVolume):
            verb()
    assert make(IDENTITY).read(chunk_hash) == data


def test_what_can_be_had_at_once_are_the_bytes_or_nothing(make: Maker, volume: Volume) -> None:
    chunk_hash, data = chunk()
    assert make(IDENTITY).read_cached(chunk_hash) is None
    volume.write({chunk_hash: data}, keep_cached=[chunk_hash])
    volume.read(chunk_hash)
    for _ in range(2):
        assert volume.read_cached(chunk_hash) in (data, None)
    volume.trash(chunk_hash, "t")
    assert volume.read_cached(chunk_hash) is None


def test_a_written_replica_is_read_listed_and_sized(volume: Volume) -> None:
    chunk_hash, data = chunk()
    volume.write({chunk_hash: data})
    volume.settle(chunk_hash)
    assert volume.read(chunk_hash) == data
    assert volume.sizes([chunk_hash]) == [len(data)]
    assert list(volume.replicas()) == [Replica(chunk_hash, len(data), len(data))]


def test_an_absent_replica_has_no_size_and_cannot_be_read(volume: Volume) -> None:
    chunk_hash, _ = chunk()
    assert volume.sizes([chunk_hash]) == [None]
    with pytest.raises(ReplicaMissing):
        volume.read(chunk_hash)
    with pytest.raises(ReplicaMissing):
        volume.rescue(chunk_hash)


def test_writing_twice_keeps_one_replica(volume: Volume) -> None:
    chunk_hash, data = chunk()
    volume.write({chunk_hash: data})
    volume.write({chunk_hash: data})
    assert list(volume.replicas()) == [Replica(chunk_hash, len(data), len(data))]


def test_trash_hides_a_replica_but_still_rescues_a_read(volume: Volume) -> None:
    chunk_hash, data = chunk()
    volume.write({chunk_hash: data})
    assert volume.trash(chunk_hash, "token")
    assert volume.sizes([chunk_hash]) == [None]
    assert list(volume.replicas()) == []
    assert list(volume.trashed()) == [Trashed(chunk_hash, "token")]
    assert volume.rescue(chunk_hash) == data
    assert not volume.trash(chunk_hash, "again"), "only one caller removes a replica"


def test_a_trashed_replica_comes_back_once(volume: Volume) -> None:
    chunk_hash, data = chunk()
    volume.write({chunk_hash: data})
    volume.trash(chunk_hash, "token")
    trashed = Trashed(chunk_hash, "token")
    assert volume.restore(trashed)
    assert volume.read(chunk_hash) == data
    assert not volume.restore(trashed)


def test_purging_frees_that_copy_and_no_newer_one(volume: Volume) -> None:
    chunk_hash, data = chunk()
    volume.write({chunk_hash: data})
    volume.trash(chunk_hash, "old")
    volume.write({chunk_hash: data})
    assert volume.purge(Trashed(chunk_hash, "old")) == len(data)
    assert volume.purge(Trashed(chunk_hash, "old")) == 0
    assert volume.read(chunk_hash) == data


def test_quarantine_returns_the_renamed_bytes_and_acquits(volume: Volume) -> None:
    chunk_hash, data = chunk()
    volume.write({chunk_hash: data})
    assert volume.quarantine(chunk_hash, "t") == data
    assert volume.sizes([chunk_hash]) == [None]
    assert volume.quarantine(chunk_hash, "u") is None
    volume.acquit(chunk_hash, "t")
    assert volume.read(chunk_hash) == data


def test_generations_are_kept_beside_the_identity(volume: Volume) -> None:
    volume.set_generations([token(3)])
    assert volume.identity() == IDENTITY.at(token(3))
    assert volume.identity().same_volume(IDENTITY)


def test_a_full_volume_takes_no_replica_but_lets_removals_make_room(volume: Volume, fill: Callable[[], None]) -> None:
    (one, data), (two, _) = chunk(b"one" * 100), chunk(b"two" * 100)
    volume.write({one: data})
    volume.write({two: data})
    fill()
    with pytest.raises(VolumeFull):
        volume.write(dict([chunk(b"more")]))
    volume.set_generations([token(9)])
    volume.set_generations([token(10)])
    assert volume.identity() == IDENTITY.at(token(10))
    assert volume.trash(one, "t")
    assert volume.trash(two, "t")
    assert volume.restore(Trashed(two, "t"))
    assert volume.quarantine(two, "q") == data
    volume.acquit(two, "q")
    assert volume.sizes([one, two]) == [None, len(data)]
    assert 0 < volume.purge(Trashed(one, "t")) <= len(data)


def test_a_spare_is_no_replica_and_is_kept_without_end(volume: Volume) -> None:
    for _ in range(2):
        volume.keep_spare()
    assert not any([*volume.replicas(), *volume.trashed(), *volume.leftovers()])
    assert volume.identity() == IDENTITY


def test_space_says_how_much_is_left(volume: Volume) -> None:
    space = volume.space()
    assert 0 < space.free <= space.total
    assert space.free_files is None or space.free_files > 0
    assert space.device


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contents=st.lists(st.binary(min_size=1, max_size=300), unique=True, max_size=20),
    digits=st.text("0123456789abcdef", max_size=3),
)
def test_listing_by_prefix_finds_exactly_what_has_it(volume: Volume, contents: list[bytes], digits: str) -> None:
    for data in contents:
        volume.write(dict([chunk(data)]))
    everything = {replica.chunk_hash for replica in volume.replicas()}
    assert {hashlib.sha256(data).hexdigest() for data in contents} <= everything
    assert {r.chunk_hash for r in volume.replicas(digits)} == {h for h in everything if h.startswith(digits)}


def test_an_unfinished_write_is_no_replica_and_can_be_discarded(tmp_path: Path) -> None:
    volume = filesystem(tmp_path)(IDENTITY)
    volume.create(IDENTITY)
    (tmp_path / "volume" / "chunks" / "ab" / ".tmp-dead").write_bytes(b"half")
    (tmp_path / "volume" / "chunks" / "ab" / "lost+found").touch()
    assert list(volume.replicas()) == []
    assert list(volume.leftovers("cd")) == []
    (leftover,) = volume.leftovers()
    assert volume.discard(leftover) == 4
    assert volume.discard(leftover) == 0
    assert list(volume.leftovers()) == []


def test_a_healthy_volume_has_no_leftovers_and_can_be_written(volume: Volume) -> None:
    volume.write(dict([chunk()]))
    assert list(volume.leftovers()) == []
    assert volume.space().writable
    assert volume.read(chunk()[0], uncached=True) == chunk()[1]
