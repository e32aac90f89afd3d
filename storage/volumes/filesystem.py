"""A volume in a directory.

The file ``identity`` names the volume. ``chunks/ab/<hash>`` are replicas, in 256 directories that are made with the
volume. A write never makes a directory, so a disk that is not mounted is never taken for an empty volume.
``trash/<hash>~<token>`` and ``quarantine/<hash>~<token>`` are replicas that were renamed out of the way. The file
``spare`` is room that a removal on a full disk can take.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from storage.exceptions import (
    ForeignVolume,
    ReplicaMissing,
    VolumeFull,
    VolumeOffline,
    VolumeReadOnly,
    VolumeUnasked,
)
from storage.volumes import identity_file, page_cache, spare
from storage.volumes.base import Identity, Replica, Space, Trashed
from storage.volumes.descriptors import DIRECTORY, open_at, read_file, sync_directory, write_all

TEMPORARY = ".tmp-"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_OWN_NAMES = {"chunks", "trash", "quarantine", spare.NAME, "lost+found"}
_OF_THIS_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_PREFIXES = [f"{i:02x}" for i in range(256)]
_HASH = re.compile(r"[0-9a-f]{64}")


class FilesystemVolume:
    """A volume in a directory. Each verb opens the directory again, and each change reads the identity first."""

    def __init__(self, root: Path, expected: Identity | None = None) -> None:
        """
        Args:
            root: the volume's directory.
            expected: the identity that must be found before a write, a listing or a removal.
        """
        self.root = root
        self.expected = expected
        self._last_found: tuple[bytes, Identity] | None = None
        self._is_local = False

    # -- identity ----------------------------------------------------------

    def require_vacant(self, identity: Identity) -> None:
        with _as_volume_errors():
            place = self.root
            while not place.exists():
                place = place.parent
            if place == self.root:
                self._carries(identity)
            # Whether a folder can be made depends on rights and mounts: only an attempt to make one shows it.
            Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=place)).rmdir()

    def _carries(self, identity: Identity) -> bool:
        """True if the volume exists and carries the identity; False if the directory is empty.

        Raises:
            ForeignVolume: other files, or another volume, are there.
        """
        with suppress(_NoIdentity):
            if self.identity().same_volume(identity):
                return True
            raise ForeignVolume(f"{self.root} belongs to another node or cluster")
        strangers = {entry.name for entry in self.root.iterdir()} - _OWN_NAMES
        if any(not name.startswith(TEMPORARY) for name in strangers):
            raise ForeignVolume(f"{self.root} is neither empty nor a volume")
        return False

    def create(self, identity: Identity) -> None:
        with _as_volume_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            if self._carries(identity):
                return
            for name in [*(f"chunks/{p}" for p in _PREFIXES), "trash", "quarantine"]:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with self._opened(check=False) as root:
                for name in ("chunks", "trash", "quarantine"):
                    sync_directory(root, name)
                spare.keep(root)
                # The identity is written last, so a volume with an identity is complete. The write is exclusive, so
                # the volume has one creator.
                _write_durably(root, {identity_file.NAME: identity_file.encode(identity)}, exclusive=True)
            sync_directory(None, str(self.root.parent))

    def identity(self) -> Identity:
        with _as_volume_errors(), self._opened(check=False) as root:
            # An answer from the page cache says nothing about a disk that hangs.
            return self._read_identity(root, uncached=True)

    def set_generations(self, generations: Sequence[str]) -> None:
        with _as_volume_errors(writing=True), self._opened() as root:
            data = identity_file.encode(self._read_identity(root).at(*generations))
            try:
                _write_durably(root, {identity_file.NAME: data})
            except OSError as error:
                if error.errno not in spare.FULL:
                    raise
                # There is no room for a second file, so the identity file is overwritten in place. Reclaim makes room,
                # but it refuses to work while the volume carries an unknown generation. Only this function can replace
                # a generation.
                spare.with_spare(root, lambda: identity_file.overwrite(root, data))

    def keep_spare(self) -> None:
        with _as_volume_errors(writing=True), self._opened() as root:
            spare.keep(root)

    # -- replicas ----------------------------------------------------------

    def space(self) -> Space:
        with _as_volume_errors(), self._opened(check=False) as root:
            statistics = os.fstatvfs(root)
            # ``os.access`` checks the rights of the effective user here. On a file system that is mounted read-only,
            # ``os.access`` returns False, even for root.
            writable = os.access("chunks", os.W_OK, dir_fd=root, effective_ids=True)
            return Space.of(statistics, str(os.fstat(root).st_dev), writable=writable)

    def sizes(self, chunk_hashes: Sequence[str]) -> list[int | None]:
        with _as_volume_errors(), self._opened() as root:
            return [_size(root, _replica(chunk_hash)) for chunk_hash in chunk_hashes]

    def read(self, chunk_hash: str, *, uncached: bool = False) -> bytes:
        with _as_volume_errors(), self._opened(check=False) as root:
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
        with _as_volume_errors(), self._opened(check=False) as root:
            for trashed in self._trashed(root):
                if trashed.chunk_hash == chunk_hash:
                    with suppress(FileNotFoundError):
                        return read_file(root, f"trash/{trashed.name}")
            self._require_expected(root)
            raise ReplicaMissing(chunk_hash)

    def write(self, replicas: Mapping[str, bytes], *, keep_cached: Collection[str] = ()) -> None:
        files = {_replica(chunk_hash): data for chunk_hash, data in replicas.items()}
        with _as_volume_errors(writing=True), self._opened() as root:
            _write_durably(root, files, keep_cached={_replica(chunk_hash) for chunk_hash in keep_cached})

    def settle(self, chunk_hash: str) -> None:
        with _as_volume_errors(), self._opened() as root:
            # Another process may have written the bytes and not called fsync yet.
            with open_at(root, _replica(chunk_hash), os.O_RDONLY | os.O_CLOEXEC) as replica:
                os.fsync(replica)
            sync_directory(root, f"chunks/{chunk_hash[:2]}")

    def replicas(self, prefix: str = "") -> Iterator[Replica]:
        for _, files in self._listings(prefix):
            for name, size in files:
                if name.startswith(prefix) and _HASH.fullmatch(name):
                    yield Replica(name, size)

    def leftovers(self, prefix: str = "") -> Iterator[str]:
        for directory, files in self._listings(prefix):
            yield from (f"{directory}/{name}" for name, _ in files if name.startswith(TEMPORARY))

    def discard(self, leftover: str) -> int:
        with _as_volume_errors(writing=True), self._opened() as root:
            return _unlink(root, f"chunks/{leftover}")

    # -- removal -----------------------------------------------------------

    def trash(self, chunk_hash: str, token: str) -> bool:
        with _as_volume_errors(writing=True), self._opened() as root:
            return _move(root, _replica(chunk_hash), f"trash/{Trashed(chunk_hash, token).name}")

    def trashed(self) -> Iterator[Trashed]:
        with _as_volume_errors(), self._opened() as root:
            entries = list(self._trashed(root))
        yield from entries

    def restore(self, trashed: Trashed) -> bool:
        with _as_volume_errors(writing=True), self._opened() as root:
            return _move(root, f"trash/{trashed.name}", _replica(trashed.chunk_hash))

    def purge(self, trashed: Trashed) -> int:
        with _as_volume_errors(writing=True), self._opened() as root:
            return _unlink(root, f"trash/{trashed.name}")

    def quarantine(self, chunk_hash: str, token: str) -> bytes | None:
        name = f"quarantine/{Trashed(chunk_hash, token).name}"
        with _as_volume_errors(writing=True), self._opened() as root:
            if not _move(root, _replica(chunk_hash), name):
                return None
            return read_file(root, name, uncached=True)

    def acquit(self, chunk_hash: str, token: str) -> None:
        with _as_volume_errors(writing=True), self._opened() as root:
            _move(root, f"quarantine/{Trashed(chunk_hash, token).name}", _replica(chunk_hash))

    # -- the directory -----------------------------------------------------

    @contextmanager
    def _opened(self, check: bool = True) -> Iterator[int]:
        """A descriptor of the volume's directory, where all paths start; if ``check``, after its identity matched."""
        with open_at(None, str(self.root), DIRECTORY) as root:
            if check:
                self._require_expected(root)
            yield root

    def _require_expected(self, root: int) -> None:
        if self.expected is not None and not self._read_identity(root).same_volume(self.expected):
            raise ForeignVolume(f"{self.root} carries another identity")

    def _read_identity(self, root: int, *, uncached: bool = False) -> Identity:
        """Read the identity file at every call, and parse it only if its bytes have changed."""
        try:
            data = read_file(root, identity_file.NAME, uncached=uncached)
        except FileNotFoundError:
            raise _NoIdentity(f"{self.root} carries no identity") from None
        last = self._last_found
        if last is None or last[0] != data:
            self._last_found = last = (data, identity_file.decode(data, self.root))
        return last[1]

    def _listings(self, prefix: str) -> Iterator[tuple[str, list[tuple[str, int]]]]:
        """Each directory that may hold replicas with ``prefix``, and the names and sizes of the files in it."""
        for directory in _PREFIXES:
            if directory.startswith(prefix) or prefix.startswith(directory):
                with _as_volume_errors(), self._opened() as root:
                    files = list(_listing(root, f"chunks/{directory}"))
                yield directory, files

    def _trashed(self, root: int) -> Iterator[Trashed]:
        for name, _ in _listing(root, "trash"):
            chunk_hash, mark, token = name.partition("~")
            if mark:
                yield Trashed(chunk_hash, token)


class _NoIdentity(ForeignVolume):
    """The directory has no identity file: a new volume may be made here, and nothing else may be done."""


def _replica(chunk_hash: str) -> str:
    return f"chunks/{chunk_hash[:2]}/{chunk_hash}"


@contextmanager
def _as_volume_errors(*, writing: bool = False) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in spare.FULL or (writing and error.errno == errno.EFBIG):
            raise VolumeFull(str(error)) from error
        if error.errno in _OF_THIS_PROCESS:
            raise VolumeUnasked(str(error)) from error
        # A volume that cannot be written to can still be read, so this error must not open the breaker.
        if error.errno == errno.EROFS or (writing and error.errno in (errno.EACCES, errno.EPERM)):
            raise VolumeReadOnly(str(error)) from error
        raise VolumeOffline(str(error)) from error


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


def _write_durably(
    root: int, files: Mapping[str, bytes], *, keep_cached: Collection[str] = (), exclusive: bool = False
) -> None:
    """Write temporary files in the directories of the files, fsync them, rename or link them, and fsync the
    directories.

    All bytes are on their way to the medium before the first fsync waits, so the file system can commit all files at
    once. A failed fsync is never retried on the same file: the kernel may have dropped the pages it could not write.

    Args:
        root: descriptor of the volume's directory.
        files: path below ``root`` → bytes.
        keep_cached: the paths whose pages stay in the page cache: a reader would ask for these copies first.
        exclusive: True to fail if a file is already there, and not to replace it.
    """
    token = uuid.uuid4().hex
    parents = {path: path.rpartition("/")[0] or "." for path in files}
    temporaries = {path: f"{parents[path]}/{TEMPORARY}{token}-{place}" for place, path in enumerate(files)}
    opened: dict[int, str] = {}
    try:
        try:
            for path, temporary in temporaries.items():
                descriptor = os.open(temporary, _NEW_FILE, 0o640, dir_fd=root)
                opened[descriptor] = path
                write_all(descriptor, files[path])
                # The call below makes the kernel begin to write the bytes, and does not wait. Unwritten pages stay in
                # memory.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            for descriptor in opened:
                os.fsync(descriptor)
                if opened[descriptor] not in keep_cached:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            for descriptor in opened:
                os.close(descriptor)
        for path, temporary in temporaries.items():
            if exclusive:
                os.link(temporary, path, src_dir_fd=root, dst_dir_fd=root)
                os.unlink(temporary, dir_fd=root)
            else:
                os.rename(temporary, path, src_dir_fd=root, dst_dir_fd=root)
    except BaseException:
        for temporary in temporaries.values():
            with suppress(OSError):
                os.unlink(temporary, dir_fd=root)
        raise
    for parent in set(parents.values()):
        sync_directory(root, parent)


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
