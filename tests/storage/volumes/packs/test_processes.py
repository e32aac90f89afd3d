"""A volume of packs that many threads and processes have open, and some of them die."""

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
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from storage.exceptions import VolumeOffline
from storage.volumes import Lane, PackVolume, Trashed
from storage.volumes.packs import handle, index, pack_file
from storage.volumes.packs.pack_file import Pack
from tests.faults.gates import Gates
from tests.support.packs import failing, hashes, named, opened, packs
from tests.support.system import PROJECT

LIMIT = 60.0  # seconds for other processes; the machine may be busy with other things
ONE, TWO = named("one"), named("two", 70_000)


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
    """Write a chunk and read it, in a child process."""
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


def look_for_connections(answers: Any, number: int, volume: PackVolume) -> None:
    held = volume._handle
    answers.put(held is not None and held.index._connection._connection is None)


def test_a_child_has_no_connection_of_its_parent(volume: PackVolume) -> None:
    volume.write(dict([ONE]))
    assert run_forked(look_for_connections, volume) == [True]


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


def write_two(volume: PackVolume) -> None:
    volume.write(dict([TWO]))


def trash_one(volume: PackVolume) -> None:
    volume.trash(ONE[0], "t")


@pytest.mark.parametrize("change", [write_two, trash_one])
def test_a_change_while_the_index_is_made_again_is_not_lost(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[PackVolume], None]
) -> None:
    """The packs have been read, and the new index has no name yet, when another process changes something."""
    volume.write(dict([ONE]))
    acknowledged = []
    install = index.Index.install

    def late(self: index.Index) -> None:
        with suppress(VolumeOffline):
            change(volume)
            acknowledged.append((hashes(volume), set(volume.trashed())))
        install(self)

    monkeypatch.setattr(handle, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(index.Index, "install", late)
    opened(root).rebuild_index()
    monkeypatch.undo()
    found = opened(root)
    for before in acknowledged:
        assert (hashes(found), set(found.trashed())) == before, "acknowledged, but not in the new index"
    change(volume)
    assert hashes(found) == hashes(volume)


def test_an_index_that_cannot_be_made_again_stays_in_use(
    volume: PackVolume, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.write(dict([ONE]))
    with monkeypatch.context() as broken, pytest.raises(VolumeOffline):
        broken.setattr(os, "pread", failing(errno.EIO))
        opened(root).rebuild_index()
    assert hashes(volume) == hashes(opened(root)) == {ONE[0]}
    opened(root).rebuild_index()
    assert hashes(volume) == {ONE[0]}
    assert not list(root.glob("index.sqlite.*"))
