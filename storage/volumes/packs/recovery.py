"""Bring an index in line with its packs: after a crash or a power cut, and when the index is lost.

A pack that is not sealed belongs to the process that has locked it. When nobody has locked such a pack, its process has
ended: records behind the part that the index knows are taken in, and a torn tail is cut off. Recovery ends before the
volume answers its first question, because a power cut may have taken the last changes of the index. The caller has
locked the volume's directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import structlog

from storage.exceptions import ForeignVolume, VolumeOffline
from storage.volumes.packs import pack_file
from storage.volumes.packs.connection import SERIAL, read_serial
from storage.volumes.packs.index import Index, PackRow, Place, Row, put_aside
from storage.volumes.packs.pack_file import Found, Pack
from storage.volumes.packs.records import BLOCK, State

log = structlog.get_logger(__name__)

SEALED_AT = 256 << 20  # A pack of this size in bytes gets no more records.
UNSYNCED = 72 << 20  # More than the most bytes that a process writes before a sync. MAX_CHUNK_SIZE is 64 MiB.


def catch_up(root: int, index: Index, volume: bytes) -> None:
    """Add to the index the records that it has missed.

    Args:
        root: descriptor of the volume's directory.
        index: the index.
        volume: the volume's fingerprint.

    Raises:
        ForeignVolume: a pack belongs to another volume.
        OSError: a pack cannot be read.
    """
    pack_file.remove_unfinished(root)
    known = {row.name: row for row in index.packs()}
    present = set(pack_file.names(root))
    for name in present:
        row = known.get(name)
        if row is None or not row.sealed:
            pack = Pack.open(root, name, os.O_RDWR)
            if row is None:
                _require_own(pack, volume)
            if pack.lock():
                take_in(pack, index, row)
    for name in known.keys() - present:
        if records := index.forget_pack(name):
            log.error("pack.missing", pack=name, records=records)
    remove_spent(root, index)


def take_in(pack: Pack, index: Index, known: PackRow | None) -> int | None:
    """Take in the records behind the known part of a locked pack, and cut off a torn tail.

    Returns:
        Where the next record may be appended; None if the pack is sealed now.
    """
    start = max(BLOCK, known.indexed if known else 0)
    size = pack.size
    rows: list[Row] = []
    end = start
    if size > start:
        # After a failed sync, the kernel may have the bytes in memory as if they were on the disk.
        os.fdatasync(pack.descriptor)
        pack.drop_cached(0, 0)
        found = list(pack.find(start))
        rows = [row_of(pack.name, each) for each in found]
        end = found[-1].end if found else start
        if size > end:
            pack.cut(end)
            os.fdatasync(pack.descriptor)
    sealed = end >= SEALED_AT
    if rows or sealed or known is None or end != known.indexed:
        index.add(pack.name, rows, end, sealed=sealed)
        log.info("pack.taken_in", pack=pack.name, records=len(rows), cut=max(0, size - end))
    return None if sealed else end


def take_back(root: int, index: Index, name: str, start: int, end: int, on_return: Callable[[], None]) -> int:
    """Take whole replicas back that lie in a byte range and that the index has lost; returns their number.

    SQLite does not notice every damage of its file. If the mark of a record says that the record is live, and the index
    knows no replica of the chunk, then the record was not purged: the index has lost it.
    """
    try:
        pack = Pack.open(root, name)
    except FileNotFoundError:
        return 0
    found = takewhile(lambda each: each.end <= end, pack.find(start))
    rows = [row_of(name, each) for each in found if each.state is State.LIVE]
    lost = [row for row in rows if index.live(row.chunk_hash) is None]
    if lost:
        on_return()
        index.add(name, lost, 0, sealed=False)
        log.error("index.had_lost", pack=name, chunks=[row.chunk_hash for row in lost])
    return len(lost)


def rebuild(root: int, folder: Path, volume: bytes, on_return: Callable[[], None]) -> int:
    """Make the index again from the packs, and put it in the place of the old one; returns the number of records.

    The old index is put aside before the packs are read. A process that still uses the old index finds at the end of
    each change that this index is not the volume's index any more. So the new index has all changes that were
    acknowledged.

    Args:
        root: descriptor of the volume's directory.
        folder: the path of the volume's directory.
        volume: the volume's fingerprint.
        on_return: is called before any process can see the new index.

    Raises:
        ForeignVolume: a pack belongs to another volume.
        OSError: a pack cannot be read, or the index cannot be written.
    """
    with put_aside(folder):
        serial = os.open(SERIAL, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o640, dir_fd=root)
        try:
            index = Index.make(folder, volume, read_serial(serial))
        finally:
            os.close(serial)
        names = sorted(pack_file.names(root))
        records = sum(_read(Pack.open(root, name, os.O_RDWR), index, volume) for name in names)
        on_return()
    index.install()
    return records


def _read(pack: Pack, index: Index, volume: bytes) -> int:
    """Add all records of a pack to an index that is being made; returns their number."""
    _require_own(pack, volume)
    size = pack.size
    os.fdatasync(pack.descriptor)
    rows = []
    end = BLOCK
    for found in pack.find(BLOCK, checked_from=size - UNSYNCED):
        end = found.end
        row = row_of(pack.name, found)
        # Of two records of one chunk, one has replaced the other, which may be damaged. So the second record that is
        # read is taken only if it is whole.
        if not index.has(row.chunk_hash, row.state, row.token) or pack.is_whole(found.offset, found.header):
            rows.append(row)
    index.add(pack.name, rows, end, sealed=end >= SEALED_AT)
    return len(rows)


def remove_spent(root: int, index: Index, name: str | None = None) -> None:
    """Unlink the sealed packs that have no record any more; with ``name``, only the pack with this name."""
    for spent in index.spent(name):
        index.forget_pack(spent)
        pack_file.remove(root, spent)
        log.info("pack.removed", pack=spent)


def require_complete(root: int, index: Index) -> None:
    """Check that the index of a volume that can only be read has missed nothing.

    Raises:
        VolumeOffline: a pack may have records that the index does not have.
    """
    known = {row.name: row for row in index.packs()}
    for name in pack_file.names(root):
        row = known.get(name)
        size = Pack.open(root, name).size
        if row is None or (not row.sealed and size > row.indexed):
            raise VolumeOffline(f"the pack {name} has to be read first, and the volume can only be read")


def row_of(pack: str, found: Found) -> Row:
    header = found.header
    return Row(header.chunk_hash, found.state, found.token, Place(pack, found.offset, header.stored, header.size))


def _require_own(pack: Pack, volume: bytes) -> None:
    maker = pack.volume
    if maker is not None and maker != volume:
        raise ForeignVolume(f"the pack {pack.name} belongs to another volume")
