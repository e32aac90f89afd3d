"""A volume in a directory, with many replicas in one file: packs that are appended to, and an index of them.

``packs/<name>.pack`` are the packs (``records`` describes them), and ``index.sqlite`` is the index. The packs are the
truth, and the index is a cache. The volume numbers all changes of the states of its records. The file ``serial`` has
the number of the last durable change, so an older index that somebody put back is recognised by its smaller number.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from storage import phases
from storage.exceptions import ReplicaMissing, VolumeOffline
from storage.volumes import spare
from storage.volumes.base import Identity, Replica, Trashed
from storage.volumes.descriptors import DIRECTORY, Descriptor, open_at, sync_directory
from storage.volumes.directory import DirectoryVolume, as_volume_errors
from storage.volumes.packs import pack_file, recovery
from storage.volumes.packs.codecs import Compressor
from storage.volumes.packs.connection import ASIDE, DRAFT, LOCK_SECONDS, NAME, SERIAL, IndexDamaged
from storage.volumes.packs.handle import Handle, Writer, locked
from storage.volumes.packs.index import Place, Row, Totals
from storage.volumes.packs.records import Codec, State, encode, fingerprint, span

_compressor = Compressor()
os.register_at_fork(after_in_child=_compressor.forget)


class PackVolume(DirectoryVolume):
    """A volume of packs. Directory, index and packs stay open between the verbs."""

    own_names = frozenset(
        {
            pack_file.FOLDER,
            SERIAL,
            spare.NAME,
            "lost+found",
            *(f"{name}{suffix}" for name in (NAME, DRAFT, ASIDE) for suffix in ("", "-wal", "-shm")),
        }
    )
    writes_to = pack_file.FOLDER

    def __init__(
        self,
        root: Path,
        expected: Identity | None = None,
        *,
        compress: bool = False,
        on_return: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            root: the volume's directory.
            expected: the identity that must be found before a write, a listing or a removal.
            compress: True to store chunks with fewer bytes where this saves enough.
            on_return: is called before records that the index does not have become replicas. Some of them may have
                been removed: a purge that died may have left their bytes, and a power cut may have taken their marks.
        """
        super().__init__(root, expected)
        self._compress = compress
        self._on_return = on_return
        self._opening = threading.Lock()
        self._handle: Handle | None = None
        self._pid = os.getpid()

    def require_vacant(self, identity: Identity) -> None:
        super().require_vacant(identity)
        with as_volume_errors(), open_at(None, str(self._nearest()), DIRECTORY) as folder:
            _require_holes(folder)

    def _make(self, root: int, identity: Identity) -> None:
        _require_holes(root)
        with suppress(FileExistsError):
            os.mkdir(pack_file.FOLDER, dir_fd=root)
        sync_directory(root, ".")
        with locked(root):
            recovery.rebuild(root, self.root, fingerprint(identity.cluster, identity.node), self._on_return)

    def rebuild_index(self) -> Totals:
        """Make the index again from the packs."""
        with self._opened_root() as root, locked(root):
            recovery.rebuild(root, self.root, self._fingerprint(root), self._on_return)
        return self.totals()

    def totals(self) -> Totals:
        """Count the records, those in trash and quarantine too."""
        with self._verb() as handle:
            return handle.index.totals()

    # -- replicas ----------------------------------------------------------

    def sizes(self, chunk_hashes: Sequence[str]) -> list[int | None]:
        with self._verb() as handle:
            found = handle.index.sizes(chunk_hashes)
            return [found.get(chunk_hash) for chunk_hash in chunk_hashes]

    def read(self, chunk_hash: str, *, uncached: bool = False) -> bytes:
        with self._verb(check=False) as handle:
            place = handle.index.live(chunk_hash)
            while place is not None:
                if data := handle.read(chunk_hash, place, uncached=uncached):
                    if not uncached:
                        handle.learn(chunk_hash, place)
                    return data
                # The record may have been purged, or written again, since the index was asked.
                before, place = place, handle.index.live(chunk_hash)
                if place == before:
                    return b""  # The record is damaged. No chunk is empty, so these bytes are found to be bad.
            # Only the right volume may say that a replica is missing.
            self._require_expected(handle.root)
            raise ReplicaMissing(chunk_hash)

    def read_cached(self, chunk_hash: str) -> bytes | None:
        handle = self._handle
        return handle.read_cached(chunk_hash) if handle is not None else None

    def rescue(self, chunk_hash: str) -> bytes:
        with self._verb(check=False) as handle:
            for row in handle.index.removed(chunk_hash, State.TRASHED):
                return handle.read(chunk_hash, row.place)
            self._require_expected(handle.root)
            raise ReplicaMissing(chunk_hash)

    def write(self, replicas: Mapping[str, bytes], *, keep_cached: Collection[str] = ()) -> None:
        # The chunks that stay in memory come first, so the pages of all other chunks are dropped as one range.
        order = sorted(replicas, key=lambda chunk_hash: chunk_hash not in keep_cached)
        records = [(chunk_hash, *self._stored(chunk_hash, replicas[chunk_hash])) for chunk_hash in order]
        with self._verb(writing=True) as handle:
            with handle.writer() as writer:
                pack, start = writer.pack, writer.end
                rows, pieces, end = [], [], start
                for chunk_hash, codec, stored in records:
                    size = len(replicas[chunk_hash])
                    rows.append(Row(chunk_hash, State.LIVE, "", Place(pack.name, end, len(stored), size)))
                    pieces += encode(chunk_hash, codec, stored, size)
                    end += span(len(stored))
                _append(handle, writer, pieces)
                phases.enter("pack.synced")
                replaced = handle.index.add(pack.name, rows, end, sealed=end >= recovery.SEALED_AT)
                writer.end = end
            phases.enter("pack.indexed")
            handle.require_current()
            kept = sum(row.place.span for row in rows if row.chunk_hash in keep_cached)
            pack.drop_cached(start + kept, end - start - kept)
            handle.remember({row.chunk_hash: row.place for row in rows})
            for place in replaced:
                handle.free(place.pack, place.offset, place.span)

    def settle(self, chunk_hash: str) -> None:
        # A record is in the index only after it was synced.
        with self._verb() as handle:
            if handle.index.live(chunk_hash) is None:
                raise VolumeOffline(f"there is no replica of {chunk_hash}")

    def replicas(self, prefix: str = "") -> Iterator[Replica]:
        with self._verb() as handle:
            yield from handle.index.listing(prefix)

    def leftovers(self, prefix: str = "") -> Iterator[str]:
        """Byte ranges of packs that have data but no record: a purge died, or a record was written again.

        A pack belongs to the prefix that its own name has, so an audit of all prefixes looks into each pack once.
        """
        with self._verb() as handle:
            for row in handle.index.packs():
                if row.name.startswith(prefix):
                    yield from (f"{row.name}@{begin}+{end - begin}" for begin, end in _ownerless(handle, row.name))

    def discard(self, leftover: str) -> int:
        name, begin, length = _parsed(leftover)
        with self._verb(writing=True) as handle:
            if recovery.take_back(handle.root, handle.index, name, begin, begin + length, self._on_return):
                return 0
            freed = 0
            for start, end in _ownerless(handle, name):
                start, end = max(start, begin), min(end, begin + length)
                if start < end:
                    handle.free(name, start, end - start)
                    freed += end - start
            return freed

    # -- removal -----------------------------------------------------------

    def trash(self, chunk_hash: str, token: str) -> bool:
        with self._verb(writing=True) as handle:
            return self._take_away(handle, chunk_hash, State.TRASHED, token) is not None

    def trashed(self) -> Iterator[Trashed]:
        with self._verb() as handle:
            entries = handle.index.trashed()
        yield from (Trashed(chunk_hash, token) for chunk_hash, token in entries)

    def restore(self, trashed: Trashed) -> bool:
        with self._verb(writing=True) as handle:
            return self._bring_back(handle, trashed.chunk_hash, State.TRASHED, trashed.token)

    def purge(self, trashed: Trashed) -> int:
        with self._verb(writing=True) as handle:
            for row in handle.index.removed(trashed.chunk_hash, State.TRASHED, trashed.token):
                if spare.with_spare(handle.root, partial(handle.index.drop, row)):
                    # The row is gone durably, before its bytes go: no row may ever lead to a hole.
                    phases.enter("pack.deleted")
                    handle.require_current()
                    handle.free(row.place.pack, row.place.offset, row.place.span)
                    phases.enter("pack.punched")
                    return row.place.stored
            return 0

    def quarantine(self, chunk_hash: str, token: str) -> bytes | None:
        with self._verb(writing=True) as handle:
            place = self._take_away(handle, chunk_hash, State.QUARANTINED, token)
            return None if place is None else handle.read(chunk_hash, place, uncached=True)

    def acquit(self, chunk_hash: str, token: str) -> None:
        with self._verb(writing=True) as handle:
            self._bring_back(handle, chunk_hash, State.QUARANTINED, token)

    def _take_away(self, handle: Handle, chunk_hash: str, state: State, token: str) -> Place | None:
        """Give a replica another state; None if there is no replica."""
        place = _change(handle, chunk_hash, (State.LIVE, ""), (state, token))
        handle.forget(chunk_hash)
        return place

    def _bring_back(self, handle: Handle, chunk_hash: str, state: State, token: str) -> bool:
        return _change(handle, chunk_hash, (state, token), (State.LIVE, "")) is not None

    # -- the open volume ---------------------------------------------------

    @contextmanager
    def _verb(self, *, check: bool = True, writing: bool = False) -> Iterator[Handle]:
        """The open volume. If ``check``, its identity is checked first. Errors are raised as errors of volumes."""
        with as_volume_errors(writing=writing):
            handle = self._current()
            if check:
                self._require_expected(handle.root)
            try:
                yield handle
            except IndexDamaged:
                self._give_up_index(handle)
                raise

    def _current(self) -> Handle:
        handle = self._handle
        if handle is not None and handle.is_current:
            return handle
        if self._pid != os.getpid():  # Another thread of the parent may have held the lock.
            self._opening, self._pid = threading.Lock(), os.getpid()
        if not self._opening.acquire(timeout=LOCK_SECONDS):
            raise VolumeOffline(f"{self.root} is being opened")
        try:
            handle = self._handle
            if handle is None or not handle.is_current:
                self._handle = handle = None
                directory = Descriptor(os.open(self.root, DIRECTORY))
                volume = self._fingerprint(directory.number)
                self._handle = handle = Handle.open(self.root, directory, volume, self._on_return)
            return handle
        finally:
            self._opening.release()

    @contextmanager
    def _opened_root(self) -> Iterator[int]:
        with as_volume_errors(writing=True), self._opened() as root:
            yield root

    def _fingerprint(self, root: int) -> bytes:
        self._require_expected(root)
        identity = self._read_identity(root)
        return fingerprint(identity.cluster, identity.node)

    def _give_up_index(self, handle: Handle) -> None:
        """Remove a damaged index, so that the next verb makes it again; unless another process has done so."""
        with suppress(OSError), locked(handle.root):
            if handle.is_current:
                os.unlink(NAME, dir_fd=handle.root)

    def _stored(self, chunk_hash: str, data: bytes) -> tuple[Codec, bytes]:
        return _compressor.shrink(chunk_hash, data) if self._compress else (Codec.RAW, data)


def _append(handle: Handle, writer: Writer, pieces: Sequence[bytes]) -> None:
    """Append records to a pack, and make them durable.

    After an error no part of the records is left, and a failed sync is not tried again: the pack gets no more records,
    because the kernel may have dropped the pages that it could not write.
    """
    try:
        writer.pack.append(pieces, writer.end)
        phases.enter("pack.appended")
        os.fdatasync(writer.pack.descriptor)
    except BaseException as error:
        with suppress(OSError):
            writer.pack.cut(writer.end)
        if not (isinstance(error, OSError) and error.errno in spare.FULL):
            with suppress(OSError, VolumeOffline):
                handle.index.add(writer.pack.name, [], writer.end, sealed=True)
        raise


def _change(handle: Handle, chunk_hash: str, old: tuple[State, str], new: tuple[State, str]) -> Place | None:
    """Change state and token of a record durably; returns its place, or None if there is no such record."""
    changed, replaced = spare.with_spare(handle.root, partial(handle.index.change, chunk_hash, old, new))
    if changed is None:
        return None
    phases.enter("pack.changed")
    handle.mark(changed, *new)  # The mark comes first: an index that is made from now on has the change.
    handle.require_current()
    for place in replaced:
        handle.free(place.pack, place.offset, place.span)
    return changed


def _ownerless(handle: Handle, name: str) -> list[tuple[int, int]]:
    """The byte ranges of a pack that have data but no record, as (begin, end). The unindexed tail is left out."""
    try:
        pack = pack_file.Pack.open(handle.root, name)
    except FileNotFoundError:
        return []
    indexed, records = handle.index.records_of(name)
    ranges: list[tuple[int, int]] = []
    position = pack_file.FIRST
    for offset, stored in [*records, (indexed, 0)]:
        if position < offset:
            ranges += pack.data_ranges(position, offset)
        position = offset + span(stored)
    return ranges


def _parsed(leftover: str) -> tuple[str, int, int]:
    name, _, place = leftover.partition("@")
    begin, _, length = place.partition("+")
    return name, int(begin), int(length)


def _require_holes(folder: int) -> None:
    try:
        pack_file.require_holes(folder)
    except OSError as error:
        if error.errno in pack_file.NO_HOLES:
            raise VolumeOffline("the file system there cannot punch holes: use a file:// volume") from error
        raise
