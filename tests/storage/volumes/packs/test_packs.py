"""A volume of packs on healthy and on broken disks, in one process and in many."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.exceptions import ReplicaMissing, VolumeFull, VolumeOffline, VolumeReadOnly
from storage.volumes import Lane, PackVolume, Trashed, page_cache
from storage.volumes.packs import connection, handle, index, pack_file, recovery
from storage.volumes.packs.pack_file import Pack
from tests.faults.gates import Gates
from tests.support.packs import IDENTITY, closed, damage, named, opened, packs, place
from tests.support.system import PROJECT

LIMIT = 60.0  # seconds for other processes; the machine may be busy with other things
ONE, TWO = named("one"), named("two", 70_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "volume"


@pytest.fixture
def volume(root: Path) -> PackVolume:
    volume = opened(root)
    volume.create(IDENTITY)
    return volume


def failing(error: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    return fail


def hashes(volume: PackVolume) -> set[str]:
    return {replica.chunk_hash for replica in volume.replicas()}


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


# -- writes that fail ------------------------------------------------------


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
def test_a_failed_write_leaves_nothing_and_the_next_one_takes_another_pack(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    volume.write(dict([ONE]))
    with monkeypatch.context() as broken, pytest.raises(VolumeOffline):
        broken.setattr(os, call, failing(errno.EIO))
        volume.write(dict([TWO]))
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
    """A real file system: the index needs room for its log, and it may be opened when there is none."""
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


# -- processes -------------------------------------------------------------

KILLED = {
    "pack.appended": "volume.write(dict([named('three'), named('four')]))",
    "pack.synced": "volume.write(dict([named('three'), named('four')]))",
    "pack.indexed": "volume.write(dict([named('three'), named('four')]))",
    "pack.changed": "volume.trash(named('one')[0], 't')",
    "pack.deleted": "volume.purge(Trashed(named('old')[0], 'o'))",
    "pack.punched": "volume.purge(Trashed(named('old')[0], 'o'))",
}

PROGRAM = """
import sys
from pathlib import Path
from storage.volumes import Trashed
from tests.support.packs import named, opened
volume = opened(Path(sys.argv[1]))
volume.write(dict([named("mine")]))
print("ready", flush=True)
sys.stdin.readline()
exec(sys.argv[2])
"""


@pytest.mark.parametrize("phase", KILLED)
def test_a_process_that_is_killed_leaves_whole_replicas_and_no_others(
    volume: PackVolume, root: Path, tmp_path: Path, phase: str
) -> None:
    volume.write(dict([ONE, TWO, named("old")]))
    volume.trash(named("old")[0], "o")
    gates = Gates(tmp_path / "gates")
    gates.folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root), KILLED[phase]],
        cwd=PROJECT,
        env=os.environ | {"PHASE_GATES": str(gates.folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        gates.close(phase)
        process.stdin.write("go\n")
        process.stdin.flush()
        os.kill(gates.await_arrival(phase), signal.SIGKILL)
        process.wait()
    gates.open(phase)
    for found in (volume, opened(root)):
        present = hashes(found)
        assert {TWO[0], named("mine")[0]} <= present
        assert (ONE[0] in present) == (phase != "pack.changed")
        assert (named("three")[0] in present) == (named("four")[0] in present)
        for name in present:
            assert hashlib.sha256(found.read(name)).hexdigest() == name
        assert (Trashed(ONE[0], "t") in set(found.trashed())) == (phase == "pack.changed")
        assert (Trashed(named("old")[0], "o") in set(found.trashed())) == (
            phase not in ("pack.deleted", "pack.punched")
        )
        found.write(dict([named(f"after {id(found)}")]))
    leftovers = list(volume.leftovers())
    assert len(leftovers) == (phase == "pack.deleted")
    for leftover in leftovers:
        assert volume.discard(leftover) >= 5000
    assert list(volume.leftovers()) == []


def run_forked(target: Any, *arguments: object, number: int = 1) -> list[Any]:
    """Call a function in forked children at once. Return what the children put into their queue."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=target, args=(answers, i, *arguments)) for i in range(number)]
    for child in children:
        child.start()
    try:
        return [answers.get(timeout=LIMIT) for _ in children]
    finally:
        for child in children:
            child.join(LIMIT)
            child.kill()
        assert [child.exitcode for child in children] == [0] * number


def use(answers: Any, number: int, volume: PackVolume) -> None:
    """Write a chunk and read it, in a child."""
    chunk = named(f"child {number}")
    volume.write(dict([chunk]))
    answers.put(volume.read(chunk[0]) == chunk[1] and volume.read(ONE[0]) == ONE[1])


def test_a_child_goes_on_with_a_volume_that_its_parent_has_open(volume: PackVolume, root: Path) -> None:
    volume.write(dict([ONE]))
    assert run_forked(use, volume, number=4) == [True] * 4
    volume.write(dict([TWO]))
    assert hashes(volume) == {ONE[0], TWO[0], *(named(f"child {i}")[0] for i in range(4))}
    assert hashes(opened(root)) == hashes(volume)
    with closing(sqlite3.connect(root / "index.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_child_of_a_process_that_writes_all_the_time(volume: PackVolume, root: Path) -> None:
    volume.write(dict([ONE]))
    over = threading.Event()
    written: list[str] = []

    def write_on() -> None:
        while not over.is_set():
            chunk = named(f"parent {len(written)}", 500)
            volume.write(dict([chunk]))
            written.append(chunk[0])

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        for _ in range(5):
            assert run_forked(use, volume, number=3) == [True] * 3
    finally:
        over.set()
        writer.join()
    assert hashes(opened(root)) >= set(written)
    with closing(sqlite3.connect(root / "index.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def open_and_write(answers: Any, number: int, root: Path) -> None:
    use(answers, number, opened(root))


def test_two_hundred_processes_open_one_volume(volume: PackVolume, root: Path) -> None:
    volume.write(dict([ONE]))
    assert run_forked(open_and_write, root, number=200) == [True] * 200
    assert len(hashes(volume)) == 201
    assert hashes(opened(root)) == hashes(volume)


def test_threads_of_one_process_write_and_read_at_once(volume: PackVolume, root: Path) -> None:
    lane = Lane(volume)
    chunks = [named(f"{i}", 20_000) for i in range(100)]
    calls = [lane.submit(volume.write, dict([chunk])) for chunk in chunks]
    for call in calls:
        lane.result(call)
    reads = [lane.submit(volume.read, name) for name, _ in chunks]
    assert [lane.result(call) for call in reads] == [data for _, data in chunks]
    assert len(packs(root)) <= 4


def test_an_index_that_is_deleted_under_running_processes_is_made_again_for_all(volume: PackVolume, root: Path) -> None:
    other = opened(root)
    volume.write(dict([ONE]))
    other.write(dict([TWO]))
    (root / "index.sqlite").unlink()
    assert hashes(volume) == hashes(other) == {ONE[0], TWO[0]}
    volume.write(dict([named("three")]))
    assert other.read(named("three")[0]) == named("three")[1]


def test_a_change_of_an_index_that_was_put_aside_is_not_acknowledged(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is made again by another process between the change and the answer."""
    volume.write(dict([ONE]))
    add = index.Index.add

    def late(self: index.Index, *arguments: Any, **options: Any) -> Any:
        (root / "index.sqlite").unlink()
        monkeypatch.setattr(index.Index, "add", add)
        assert hashes(opened(root)) >= {ONE[0]}
        return add(self, *arguments, **options)

    monkeypatch.setattr(index.Index, "add", late)
    with pytest.raises(VolumeOffline):
        volume.write(dict([TWO]))
    assert volume.read(ONE[0]) == ONE[1]
    volume.write(dict([TWO]))
    assert opened(root).read(TWO[0]) == TWO[1]


def test_unfinished_packs_are_removed(volume: PackVolume, root: Path) -> None:
    unfinished = root / "packs" / f"dead{pack_file.SUFFIX}{pack_file.UNFINISHED}"
    unfinished.write_bytes(b"half")
    assert hashes(opened(root)) == set()
    assert not unfinished.exists()


def test_what_was_rescued_from_the_trash_is_not_read_from_memory(volume: PackVolume) -> None:
    volume.write(dict([TWO]), keep_cached=[TWO[0]])
    volume.read(TWO[0])
    volume.trash(TWO[0], "t")
    assert volume.rescue(TWO[0]) == TWO[1]
    assert volume.read_cached(TWO[0]) is None


def test_a_pack_that_is_taken_for_a_dead_one_before_it_is_locked_is_made_again(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = pack_file._unfinished

    def overtaken(directory: int) -> Pack:
        made = unfinished(directory)
        monkeypatch.setattr(pack_file, "_unfinished", unfinished)
        pack_file.remove_unfinished(directory)
        return made

    monkeypatch.setattr(pack_file, "_unfinished", overtaken)
    volume.write(dict([ONE]))
    assert opened(root).read(ONE[0]) == ONE[1]
    assert len(list((root / "packs").iterdir())) == 1
