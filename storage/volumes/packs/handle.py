"""What one process keeps open of a volume of packs between its verbs."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import structlog

from storage.exceptions import VolumeOffline
from storage.volumes import page_cache, spare
from storage.volumes.descriptors import DIRECTORY, Descriptor
from storage.volumes.packs import pack_file, recovery
from storage.volumes.packs.codecs import expand
from storage.volumes.packs.connection import LOCK_SECONDS, NAME, IndexDamaged
from storage.volumes.packs.index import Index, Place
from storage.volumes.packs.pack_file import Pack
from storage.volumes.packs.records import DATA, State, decode

log = structlog.get_logger(__name__)

OPEN_PACKS = 64  # A process keeps this many packs of a volume open for reading.
REMEMBERED = 16_384  # A process remembers the places of this many chunks of a volume.
NEIGHBOURS = 256  # A read that finds a chunk also learns the places of this many chunks behind it.


@dataclass
class Writer:
    """A pack that this process appends to, and the offset ``end`` at which its next record begins."""

    pack: Pack
    end: int


class Handle:
    """The open directory, index and packs of a volume. All of them are closed when nobody uses the object any more."""

    def __init__(self, folder: Path, directory: Descriptor, index: Index, volume: bytes) -> None:
        self.root = directory.number
        self.index = index
        self.is_local = page_cache.is_local(self.root)
        self._directory = directory
        self._folder = folder
        self._volume = volume
        self._pid = os.getpid()
        self._lock = Lock()
        self._packs: OrderedDict[str, Pack] = OrderedDict()
        self._places: OrderedDict[str, Place] = OrderedDict()
        self._writers: list[Writer] = []
        status = os.fstat(self.root)
        self._device, self._inode = status.st_dev, status.st_ino

    @classmethod
    def open(cls, folder: Path, directory: Descriptor, volume: bytes, on_return: Callable[[], None]) -> Handle:
        """Open the index of a volume, and bring it in line with the packs before anybody asks it.

        Args:
            folder: the path of the volume's directory.
            directory: the descriptor of this directory, whose identity was checked.
            volume: the volume's fingerprint.
            on_return: is called before an index that was made again is used.

        Raises:
            VolumeOffline: another process opens, repairs or rebuilds the index now.
        """
        root = directory.number
        with locked(root):
            try:
                # Even to read an index, SQLite needs room: for a file whose memory its processes share.
                index = spare.with_spare(root, partial(_opened, folder, root, volume))
            except IndexDamaged as error:
                log.error("index.damaged", volume=str(folder), error=str(error))
                records = spare.with_spare(root, partial(recovery.rebuild, root, folder, volume, on_return))
                log.warning("index.rebuilt", volume=str(folder), records=records)
                index = _opened(folder, root, volume)
        handle = cls(folder, directory, index, volume)
        handle.require_current()  # SQLite has opened the index by its path.
        return handle

    @property
    def is_current(self) -> bool:
        """True if the volume's path still leads to the directory and the index that were opened (RACES 20)."""
        try:
            root = self._folder.stat()
            index = os.stat(NAME, dir_fd=self.root)
        except FileNotFoundError:
            return False
        is_same = (root.st_dev, root.st_ino, index.st_ino) == (self._device, self._inode, self.index.inode)
        return is_same and self._pid == os.getpid()

    def require_current(self) -> None:
        """Check at the end of a change that it was made in the volume, not in files that were put aside."""
        if not self.is_current:
            raise VolumeOffline(f"{self._folder} was exchanged")

    # -- reading -----------------------------------------------------------

    def read(self, chunk_hash: str, place: Place, *, uncached: bool = False) -> bytes:
        """The chunk that a record holds, unverified; no bytes at all if the record is not where it should be."""
        try:
            pack = self._pack(place.pack)
        except FileNotFoundError:
            return b""
        if uncached:
            pack.drop_cached(place.offset, place.span)
        header = decode(pack.read(place.offset, DATA))
        if header is None or header.chunk_hash != chunk_hash:
            return b""
        return expand(header.codec, pack.read(place.offset + DATA, place.stored), header.size)

    def read_cached(self, chunk_hash: str) -> bytes | None:
        """The bytes of a record whose place this process remembers, if they are in memory. Nothing here waits."""
        place = self._places.get(chunk_hash)
        pack = self._packs.get(place.pack) if place else None
        if place is None or pack is None or not self.is_local:
            return None
        record = page_cache.read_range(pack.descriptor, place.offset, DATA + place.stored)
        header = decode(bytes(record[:DATA])) if record is not None else None
        if record is None or header is None or header.chunk_hash != chunk_hash:
            return None
        return expand(header.codec, bytes(record[DATA:]), header.size)

    def remember(self, places: Mapping[str, Place]) -> None:
        with self._lock:
            self._places.update(places)
            while len(self._places) > REMEMBERED:
                self._places.popitem(last=False)

    def learn(self, chunk_hash: str, place: Place) -> None:
        """Remember where a chunk was found, and where the chunks behind it in the pack are.

        The chunks behind a chunk are often chunks of the same file, or of files of the same time. A chunk whose place
        is remembered can be read by ``read_cached``, without the way through the lane.
        """
        if chunk_hash not in self._places:
            self.remember({chunk_hash: place} | self.index.behind(place, NEIGHBOURS))

    def forget(self, chunk_hash: str) -> None:
        with self._lock:
            self._places.pop(chunk_hash, None)

    def _pack(self, name: str) -> Pack:
        with self._lock:
            pack = self._packs.get(name)
            if pack is not None:
                self._packs.move_to_end(name)
                return pack
        pack = Pack.open(self.root, name)
        with self._lock:
            self._packs[name] = pack
            if len(self._packs) > OPEN_PACKS:
                self._packs.popitem(last=False)
        return pack

    # -- changing ----------------------------------------------------------

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """A pack to append to, for one thread at a time. After an error, another pack is taken next time."""
        with self._lock:
            writer = self._writers.pop() if self._writers else None
        writer = writer or self._idle_pack() or Writer(pack_file.create(self.root, self._volume), pack_file.FIRST)
        yield writer
        if writer.end < recovery.SEALED_AT:
            with self._lock:
                self._writers.append(writer)

    def _idle_pack(self) -> Writer | None:
        """Lock a pack that is not sealed and that no process has locked; None if there is no such pack."""
        for row in self.index.packs(unsealed=True):
            try:
                pack = Pack.open(self.root, row.name, os.O_RDWR)
                # Once this process has locked the pack, no other process changes what the index says about it.
                if not pack.lock() or (known := self.index.pack(row.name)) is None or known.sealed:
                    continue
                end = recovery.take_in(pack, self.index, known)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    log.warning("pack.unusable", pack=row.name, error=str(error))
                continue
            if end is not None:
                return Writer(pack, end)
        return None

    def mark(self, place: Place, state: State, token: str) -> None:
        """Copy the state of a record into its mark."""
        with suppress(OSError):
            Pack.open(self.root, place.pack, os.O_RDWR).mark(place.offset, state, token)

    def free(self, name: str, offset: int, length: int) -> None:
        """Give back the room of records that left the index. An audit finds room that was not given back."""
        try:
            Pack.open(self.root, name, os.O_RDWR).punch(offset, length)
        except OSError as error:
            log.warning("pack.unpunched", pack=name, offset=offset, error=str(error))
        recovery.remove_spent(self.root, self.index, name)


def _opened(folder: Path, root: int, volume: bytes) -> Index:
    """Open the index, and bring it in line with the packs."""
    index = Index(folder, volume)
    if os.access(pack_file.FOLDER, os.W_OK, dir_fd=root, effective_ids=True):
        recovery.catch_up(root, index, volume)
    else:
        recovery.require_complete(root, index)
    return index


@contextmanager
def locked(root: int) -> Iterator[None]:
    """Be the only process that opens, repairs or rebuilds the index of a volume.

    Raises:
        VolumeOffline: another process did not end such work within ``LOCK_SECONDS``.
    """
    descriptor = os.open(".", DIRECTORY, dir_fd=root)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise VolumeOffline("another process makes its index") from None
                time.sleep(0.005)
        yield
    finally:
        # A child that was forked under the lock has the descriptor too, and would keep the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
