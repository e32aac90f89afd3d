"""Pack files: append, read, punch holes, and find the records in them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zlib_ng import zlib_ng

from storage.volumes.descriptors import DIRECTORY, Descriptor, open_at, sync_directory, write_all
from storage.volumes.packs.codecs import expand
from storage.volumes.packs.records import (
    BLOCK,
    DATA,
    MARK_OFFSET,
    Header,
    State,
    decode,
    decode_mark,
    encode_mark,
    pack_block,
    pack_volume,
)

FOLDER = "packs"
SUFFIX = ".pack"
UNFINISHED = ".new"

FIRST = BLOCK  # The first record of a pack begins here, behind the block that names the volume.

NO_HOLES = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSYS)  # The errors of a file system that cannot punch holes.

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_IOV_MAX = os.sysconf("SC_IOV_MAX")
_fallocate = ctypes.CDLL(None, use_errno=True)["fallocate"]
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Pack:
    """A pack that this process has open. The file is closed when nobody holds the object any more."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self._file = Descriptor(descriptor)

    @classmethod
    def open(cls, root: int, name: str, flags: int = os.O_RDONLY) -> Pack:
        """Open a pack of the volume whose directory is ``root``.

        Raises:
            FileNotFoundError: the pack is not there.
        """
        path = f"{FOLDER}/{name}{SUFFIX}"
        return cls(name, os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=root))

    @property
    def size(self) -> int:
        """The length of the file in bytes."""
        return os.fstat(self.descriptor).st_size

    @property
    def is_removed(self) -> bool:
        return os.fstat(self.descriptor).st_nlink == 0

    @property
    def volume(self) -> bytes | None:
        """The fingerprint of the volume that the pack was made for; None if its first block is damaged."""
        return pack_volume(os.pread(self.descriptor, BLOCK, 0))

    def lock(self) -> bool:
        """Become the process that appends; False if another process appends, or the pack has been removed."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return not self.is_removed

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from the pack: fewer than ``length`` if the pack ends before."""
        data = os.pread(self.descriptor, length, offset)
        while (
            data and len(data) < length and (more := os.pread(self.descriptor, length - len(data), offset + len(data)))
        ):
            data += more
        return data

    def append(self, pieces: Sequence[bytes], offset: int) -> None:
        """Write the byte strings ``pieces`` one after the other from ``offset`` on. The bytes are not durable yet.

        Raises:
            OSError: not everything could be written.
        """
        left = [memoryview(piece) for piece in pieces if piece]
        while left:
            written = os.pwritev(self.descriptor, left[:_IOV_MAX], offset)
            offset += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]

    def cut(self, end: int) -> None:
        """Cut off the bytes behind ``end``."""
        os.ftruncate(self.descriptor, end)

    def drop_cached(self, offset: int, length: int) -> None:
        """Ask the kernel to drop clean pages from memory."""
        os.posix_fadvise(self.descriptor, offset, length, os.POSIX_FADV_DONTNEED)

    def punch(self, offset: int, length: int) -> None:
        """Give the blocks of a byte range back to the file system. The range reads as zeros from now on.

        Raises:
            OSError: the file system cannot do that.
        """
        if _fallocate(self.descriptor, _PUNCH_HOLE | _KEEP_SIZE, offset, length):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), self.name)

    def mark(self, offset: int, state: State, token: str) -> None:
        """Write the state of a record into its mark. A mark is a copy, so a failure does not matter."""
        if (data := encode_mark(state, token)) is not None:
            with suppress(OSError):
                os.pwrite(self.descriptor, data, offset + MARK_OFFSET)

    def data_ranges(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The byte ranges between ``start`` and ``end`` that are no holes, as (begin, end)."""
        while start < end:
            try:
                begin = os.lseek(self.descriptor, start, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # There is no data behind ``start``.
                    return
                raise
            stop = os.lseek(self.descriptor, begin, os.SEEK_HOLE)
            if begin < end:
                yield begin, min(stop, end)
            start = stop

    def find(self, start: int, checked_from: int = 0) -> Iterator[Found]:
        """Find the whole records from ``start`` on.

        A damaged header makes the next records uncertain: the bytes of a chunk may look like a record. A record behind
        a damaged header is only believed if its bytes have the right hash.

        Args:
            start: a multiple of ``BLOCK``.
            checked_from: records that end behind this offset are read as a whole, and their CRC is checked.
        """
        size = self.size
        lost = False
        for begin, end in self.data_ranges(start, size):
            place = max(start, begin // BLOCK * BLOCK)
            while place < end:
                head = os.pread(self.descriptor, DATA, place)
                header = decode(head)
                if header is None or place + header.span > size:
                    lost, place = True, place + BLOCK
                    continue
                must_read = lost or place + header.span > checked_from
                if not must_read or self.is_whole(place, header, certain=not lost):
                    yield Found(place, header, *decode_mark(head))
                    lost = False
                    place = start = place + header.span
                else:
                    # The header is whole, so the next record begins behind this record. But if an earlier header was
                    # damaged, this header may be bytes of a chunk: then the next block is tried.
                    place = start = place + (BLOCK if lost else header.span)

    def is_whole(self, offset: int, header: Header, *, certain: bool = True) -> bool:
        """Tell whether a record's bytes have their CRC and, if ``certain`` is False, also the hash of the chunk."""
        stored = self.read(offset + DATA, header.stored)
        if len(stored) < header.stored or zlib_ng.crc32(stored) != header.crc:
            return False
        return certain or hashlib.sha256(expand(header.codec, stored, header.size)).hexdigest() == header.chunk_hash


@dataclass(frozen=True)
class Found:
    """A record that was found in a pack: where it begins, and what its header and mark say."""

    offset: int
    header: Header
    state: State
    token: str

    @property
    def end(self) -> int:
        return self.offset + self.header.span


def create(root: int, volume: bytes) -> Pack:
    """Make a pack with a new name, durably, and lock it. The pack is locked and whole when it gets its name.

    Raises:
        OSError: there is no room, for example; no part of the pack is left.
    """
    # A process that opens the volume may find the file before it is locked, believe that its creator died, and remove
    # the file. Then another file is made.
    while not (pack := _unfinished(root)).lock():
        pass
    path = f"{FOLDER}/{pack.name}{SUFFIX}"
    try:
        write_all(pack.descriptor, pack_block(volume))
        os.fdatasync(pack.descriptor)
        os.rename(f"{path}{UNFINISHED}", path, src_dir_fd=root, dst_dir_fd=root)
        sync_directory(root, FOLDER)
    except BaseException:
        for left in (path, f"{path}{UNFINISHED}"):
            with suppress(OSError):
                os.unlink(left, dir_fd=root)
        raise
    return pack


def _unfinished(root: int) -> Pack:
    name = uuid.uuid4().hex
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return Pack(name, os.open(f"{FOLDER}/{name}{SUFFIX}{UNFINISHED}", flags, 0o640, dir_fd=root))


def remove_unfinished(root: int) -> None:
    """Remove packs whose creator died before they got their names."""
    for name in _listing(root):
        if name.endswith(UNFINISHED):
            with suppress(FileNotFoundError):
                pack = Pack(name, os.open(f"{FOLDER}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root))
                if pack.lock():
                    os.unlink(f"{FOLDER}/{name}", dir_fd=root)


def remove(root: int, name: str) -> None:
    """Unlink a pack. A reader that has the pack open can go on reading."""
    with suppress(FileNotFoundError):
        os.unlink(f"{FOLDER}/{name}{SUFFIX}", dir_fd=root)


def names(root: int) -> list[str]:
    """The names of all packs in the volume's directory."""
    return [name.removesuffix(SUFFIX) for name in _listing(root) if name.endswith(SUFFIX)]


def _listing(root: int) -> list[str]:
    with open_at(root, FOLDER, DIRECTORY) as folder:
        return os.listdir(folder)  # noqa: PTH208  a descriptor is no path


def can_punch_holes(folder: Path) -> bool:
    """False if the file system of ``folder`` cannot punch holes; True if it can, or if that cannot be tried now."""
    try:
        with open_at(None, str(folder), DIRECTORY) as descriptor:
            require_holes(descriptor)
    except OSError as error:
        return error.errno not in NO_HOLES
    return True


def require_holes(root: int) -> None:
    """Check that the file system can punch holes.

    Raises:
        OSError: the file system cannot punch holes, or cannot be written to.
    """
    pack = Pack("", os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, dir_fd=root))
    os.pwrite(pack.descriptor, bytes(BLOCK), 0)
    pack.punch(0, BLOCK)
