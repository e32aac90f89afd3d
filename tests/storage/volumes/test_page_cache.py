from __future__ import annotations

import ctypes
import errno
import os
import threading
from pathlib import Path

import pytest

from storage.volumes import FilesystemVolume, Identity, page_cache
from tests.contract.test_volume import chunk

IDENTITY = Identity("cluster", "node_000", "node")
DATA = os.urandom(3 * 65536 + 5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that is in memory and on its disk."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        known = page_cache.is_local(descriptor)
    finally:
        os.close(descriptor)
    if not known or page_cache.read(str(path)) is None:
        pytest.skip("neither a local file system nor a kernel that says what it has in memory")
    return path


def drop(path: Path, but_for: int) -> None:
    """Drop the file from memory, except its last page if ``but_for`` is 1."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # With this advice, the kernel reads nothing ahead.
        os.pread(descriptor, 1, len(DATA) - 1 if but_for else len(DATA))
    finally:
        os.close(descriptor)


def pages(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return page_cache._pages(descriptor)
    finally:
        os.close(descriptor)


def test_what_is_in_memory_is_read(file: Path) -> None:
    assert page_cache.read(str(file)) == DATA


@pytest.mark.parametrize("left", [0, 1])
def test_what_is_not_in_memory_is_neither_read_nor_fetched(file: Path, left: int) -> None:
    """If the disk is busy, even the start of a read would wait."""
    drop(file, but_for=left)
    assert pages(file) == left
    assert page_cache.read(str(file)) is None
    assert pages(file) == left
    assert file.read_bytes() == DATA


def test_a_name_that_nobody_has_looked_up_is_not_looked_up(file: Path) -> None:
    assert page_cache.read(str(file.with_name("unknown"))) is None
    assert ctypes.get_errno() == errno.EAGAIN


def test_what_is_not_a_file_makes_nobody_wait(file: Path) -> None:
    pipe, link = file.with_name("pipe"), file.with_name("link")
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    names = [str(path) for path in (pipe, link, file.parent)]
    for name in names:
        os.stat(name)  # Now the kernel has the name in its cache.
    answers: list[bytes | None] = []
    reader = threading.Thread(target=lambda: answers.extend(map(page_cache.read, names)), daemon=True)
    reader.start()
    reader.join(10)
    assert answers == [None, None, None]


def test_large_and_empty_files_are_left_to_others(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache, "LARGEST", len(DATA) - 1)
    assert page_cache.read(str(file)) is None
    file.write_bytes(b"")
    assert page_cache.read(str(file)) is None


@pytest.mark.parametrize("call", ["_OPENAT2", "_CACHESTAT"])
def test_a_kernel_that_does_not_know_how_is_not_asked_for_bytes(
    file: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(page_cache, call, 100_000)
    assert page_cache.read(str(file)) is None


def test_a_volume_is_read_in_place_once_a_read_has_found_it_on_a_local_disk(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system over a network would wait for its server even to open a cached file."""
    volume = FilesystemVolume(file.parent / "volume", IDENTITY)
    volume.create(IDENTITY)
    chunk_hash, data = chunk()
    volume.write({chunk_hash: data}, keep_cached=[chunk_hash])
    assert volume.read_cached(chunk_hash) is None
    volume.read(chunk_hash)
    assert volume.read_cached(chunk_hash) == data
    monkeypatch.setattr(page_cache, "_LOCAL", set())
    volume.read(chunk_hash)
    assert volume.read_cached(chunk_hash) is None


def test_of_what_is_written_memory_keeps_what_is_asked_to_be_kept(file: Path) -> None:
    volume = FilesystemVolume(file.parent / "volume", IDENTITY)
    volume.create(IDENTITY)
    kept, dropped = chunk(b"kept" * 5000), chunk(b"dropped" * 5000)
    volume.write(dict([kept, dropped]), keep_cached=[kept[0]])
    folder = file.parent / "volume" / "chunks"
    assert [pages(folder / name[:2] / name) > 0 for name, _ in (kept, dropped)] == [True, False]
