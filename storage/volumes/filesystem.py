"""A volume in a directory, with one file for each replica.

``chunks/ab/<hash>`` are replicas, in 256 directories that are made with the volume. A write never makes a directory, so
a disk that is not mounted is never taken for an empty volume. ``trash/<hash>~<token>`` and
``quarantine/<hash>~<token>`` are replicas that were renamed out of the way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from storage.exceptions import ReplicaMissing
from storage.volumes import page_cache, spare
from storage.volumes.base import Identity, Replica, Trashed
from storage.volumes.descriptors import DIRECTORY, open_at, read_file, sync_directory
from storage.volumes.directory import TEMPORARY, DirectoryVolume, as_volume_errors, write_durably

_PREFIXES = [f"{i:02x}" for i in range(256)]
_HASH = re.compile(r"[0-9a-f]{64}")


class FilesystemVolume(DirectoryVolume):
    """A volume with one file for each replica. Each verb opens the directory again."""

    own_names = frozenset({"chunks", "trash", "quarantine", spare.NAME, "lost+found"})
    writes_to = "chunks"

    def __init__(self, root: Path, expected: Identity | None = None) -> None:
        super().__init__(root, expected)
        self._is_local = False

    def _make(self, root: int, identity: Identity) -> None:
        for name in ("chunks", *(f"chunks/{prefix}" for prefix in _PREFIXES), "trash", "quarantine"):
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=root)
        for name in ("chunks", "trash", "quarantine"):
            sync_directory(root, name)

    # -- replicas ----------------------------------------------------------

    def sizes(self, chunk_hashes: Sequence[str]) -> list[int | None]:
        with as_volume_errors(), self._opened() as root:
            return [_size(root, _replica(chunk_hash)) for chunk_hash in chunk_hashes]

    def read(self, chunk_hash: str, *, uncached: bool = False) -> bytes:
        with as_volume_errors(), self._opened(check=False) as root:
            # This call may wait for a disk, so it is made here and not in ``read_cached``. Each read asks again whether
            # the file system is local, because another file system may have been mounted since.
            self._is_local = page_cache.is_local(root)
            try:
                return read_file(root, _replica(chunk_hash), uncached=uncached)
            except FileNotFoundError:
                # An empty mount point has no files. Only the right volume may say that a replica is missing.
                self._require_expected(root)
                raise ReplicaMissing(chunk_hash) from None

    def read_cached(self, chunk_hash: str) -> bytes | None:
        return page_cache.read(f"{self.root}/{_replica(chunk_hash)}") if self._is_local else None

    def rescue(self, chunk_hash: str) -> bytes:
        with as_volume_errors(), self._opened(check=False) as root:
            for trashed in self._trashed(root):
                if trashed.chunk_hash == chunk_hash:
                    with suppress(FileNotFoundError):
                        return read_file(root, f"trash/{trashed.name}")
            self._require_expected(root)
            raise ReplicaMissing(chunk_hash)

    def write(self, replicas: Mapping[str, bytes], *, keep_cached: Collection[str] = ()) -> None:
        files = {_replica(chunk_hash): data for chunk_hash, data in replicas.items()}
        with as_volume_errors(writing=True), self._opened() as root:
            write_durably(root, files, keep_cached={_replica(chunk_hash) for chunk_hash in keep_cached})

    def settle(self, chunk_hash: str) -> None:
        with as_volume_errors(), self._opened() as root:
            # Another process may have written the bytes and not called fsync yet.
            with open_at(root, _replica(chunk_hash), os.O_RDONLY | os.O_CLOEXEC) as replica:
                os.fsync(replica)
            sync_directory(root, f"chunks/{chunk_hash[:2]}")

    def replicas(self, prefix: str = "") -> Iterator[Replica]:
        for _, files in self._listings(prefix):
            for name, size in files:
                if name.startswith(prefix) and _HASH.fullmatch(name):
                    yield Replica(name, size, size)

    def leftovers(self, prefix: str = "") -> Iterator[str]:
        for directory, files in self._listings(prefix):
            yield from (f"{directory}/{name}" for name, _ in files if name.startswith(TEMPORARY))

    def discard(self, leftover: str) -> int:
        with as_volume_errors(writing=True), self._opened() as root:
            return _unlink(root, f"chunks/{leftover}")

    # -- removal -----------------------------------------------------------

    def trash(self, chunk_hash: str, token: str) -> bool:
        with as_volume_errors(writing=True), self._opened() as root:
            return _move(root, _replica(chunk_hash), f"trash/{Trashed(chunk_hash, token).name}")

    def trashed(self) -> Iterator[Trashed]:
        with as_volume_errors(), self._opened() as root:
            entries = list(self._trashed(root))
        yield from entries

    def restore(self, trashed: Trashed) -> bool:
        with as_volume_errors(writing=True), self._opened() as root:
            return _move(root, f"trash/{trashed.name}", _replica(trashed.chunk_hash))

    def purge(self, trashed: Trashed) -> int:
        with as_volume_errors(writing=True), self._opened() as root:
            return _unlink(root, f"trash/{trashed.name}")

    def quarantine(self, chunk_hash: str, token: str) -> bytes | None:
        name = f"quarantine/{Trashed(chunk_hash, token).name}"
        with as_volume_errors(writing=True), self._opened() as root:
            if not _move(root, _replica(chunk_hash), name):
                return None
            return read_file(root, name, uncached=True)

    def acquit(self, chunk_hash: str, token: str) -> None:
        with as_volume_errors(writing=True), self._opened() as root:
            _move(root, f"quarantine/{Trashed(chunk_hash, token).name}", _replica(chunk_hash))

    # -- the directory -----------------------------------------------------

    def _listings(self, prefix: str) -> Iterator[tuple[str, list[tuple[str, int]]]]:
        """Each directory that may hold replicas with ``prefix``, and the names and sizes of the files in it."""
        for directory in _PREFIXES:
            if directory.startswith(prefix) or prefix.startswith(directory):
                with as_volume_errors(), self._opened() as root:
                    files = list(_listing(root, f"chunks/{directory}"))
                yield directory, files

    def _trashed(self, root: int) -> Iterator[Trashed]:
        for name, _ in _listing(root, "trash"):
            chunk_hash, mark, token = name.partition("~")
            if mark:
                yield Trashed(chunk_hash, token)


def _replica(chunk_hash: str) -> str:
    return f"chunks/{chunk_hash[:2]}/{chunk_hash}"


def _size(directory: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except FileNotFoundError:
        return None


def _unlink(directory: int, name: str) -> int:
    """Remove a file; returns the bytes freed, 0 if the file is not there."""
    try:
        size = os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return 0
    return size


def _move(root: int, source: str, target: str) -> bool:
    """Rename a file and make both directories durable; false if the source is not there."""
    try:
        spare.with_spare(root, lambda: os.rename(source, target, src_dir_fd=root, dst_dir_fd=root))
    except FileNotFoundError:
        return False
    sync_directory(root, str(Path(target).parent))
    sync_directory(root, str(Path(source).parent))
    return True


def _listing(root: int, directory: str) -> Iterator[tuple[str, int]]:
    with open_at(root, directory, DIRECTORY) as descriptor, os.scandir(descriptor) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                yield entry.name, entry.stat(follow_symlinks=False).st_size
