"""What every volume in a directory has: an identity, a spare, and verbs that go through the checked directory.

The file ``identity`` names the volume. The file ``spare`` is room that a removal on a full disk can take.
"""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from storage.exceptions import ForeignVolume, VolumeFull, VolumeOffline, VolumeReadOnly, VolumeUnasked
from storage.volumes import identity_file, spare
from storage.volumes.base import Identity, Space
from storage.volumes.descriptors import DIRECTORY, open_at, read_file, sync_directory, write_all

TEMPORARY = ".tmp-"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_OF_THIS_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class DirectoryVolume(ABC):
    """A volume in a directory. Each change reads the identity first.

    Attributes:
        own_names: the names that an unfinished creation may have left in the directory.
        writes_to: the subdirectory that takes new replicas.
    """

    own_names: ClassVar[frozenset[str]]
    writes_to: ClassVar[str]

    def __init__(self, root: Path, expected: Identity | None = None) -> None:
        """
        Args:
            root: the volume's directory.
            expected: the identity that must be found before a write, a listing or a removal.
        """
        self.root = root
        self.expected = expected
        self._last_found: tuple[bytes, Identity] | None = None

    @abstractmethod
    def _make(self, root: int, identity: Identity) -> None:
        """Make what the volume needs besides identity and spare, durably; what is there already is completed.

        Args:
            root: descriptor of the volume's directory.
            identity: the identity that the volume will carry.
        """

    # -- identity ----------------------------------------------------------

    def require_vacant(self, identity: Identity) -> None:
        with as_volume_errors():
            place = self._nearest()
            if place == self.root:
                self._carries(identity)
            # Whether a directory can be made depends on rights and mounts: only an attempt shows it.
            Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=place)).rmdir()

    def _nearest(self) -> Path:
        """The volume's directory, or the nearest directory above it that is there."""
        return next(place for place in (self.root, *self.root.parents) if place.exists())

    def _carries(self, identity: Identity) -> bool:
        """True if the volume exists and carries the identity; False if the directory is empty.

        Raises:
            ForeignVolume: other files, or another volume, are there.
        """
        with suppress(_NoIdentity):
            if self.identity().same_volume(identity):
                return True
            raise ForeignVolume(f"{self.root} belongs to another node or cluster")
        strangers = {entry.name for entry in self.root.iterdir()} - self.own_names
        if any(not name.startswith(TEMPORARY) for name in strangers):
            raise ForeignVolume(f"{self.root} is neither empty nor a volume")
        return False

    def create(self, identity: Identity) -> None:
        with as_volume_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            if self._carries(identity):
                return
            with self._opened(check=False) as root:
                self._make(root, identity)
                spare.keep(root)
                # The identity is written last, so a volume with an identity is complete. The write is exclusive, so
                # the volume has one creator.
                write_durably(root, {identity_file.NAME: identity_file.encode(identity)}, exclusive=True)
            sync_directory(None, str(self.root.parent))

    def identity(self) -> Identity:
        with as_volume_errors(), self._opened(check=False) as root:
            # An answer from the page cache says nothing about a disk that hangs.
            return self._read_identity(root, uncached=True)

    def set_generations(self, generations: Sequence[str]) -> None:
        with as_volume_errors(writing=True), self._opened() as root:
            data = identity_file.encode(self._read_identity(root).at(*generations))
            try:
                write_durably(root, {identity_file.NAME: data})
            except OSError as error:
                if error.errno not in spare.FULL:
                    raise
                # There is no room for a second file, so the identity file is overwritten in place. Reclaim makes room,
                # but it refuses to work while the volume carries an unknown generation. Only this function can replace
                # a generation.
                spare.with_spare(root, lambda: identity_file.overwrite(root, data))

    def keep_spare(self) -> None:
        with as_volume_errors(writing=True), self._opened() as root:
            spare.keep(root)

    def space(self) -> Space:
        with as_volume_errors(), self._opened(check=False) as root:
            statistics = os.fstatvfs(root)
            # ``os.access`` checks the rights of the effective user here. On a file system that is mounted read-only,
            # ``os.access`` returns False, even for root.
            writable = os.access(self.writes_to, os.W_OK, dir_fd=root, effective_ids=True)
            return Space.of(statistics, str(os.fstat(root).st_dev), writable=writable)

    # -- the directory -----------------------------------------------------

    @contextmanager
    def _opened(self, check: bool = True) -> Iterator[int]:
        """A descriptor of the volume's directory, where all paths start. If ``check``, the identity is compared."""
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


class _NoIdentity(ForeignVolume):
    """The directory has no identity file: a new volume may be made here, and nothing else may be done."""


@contextmanager
def as_volume_errors(*, writing: bool = False) -> Iterator[None]:
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


def write_durably(
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
        exclusive: True to fail if a file already exists, and not to replace it.
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
                # The call below makes the kernel begin to write the bytes, and does not wait. Pages that are not on the
                # disk yet stay in memory.
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
