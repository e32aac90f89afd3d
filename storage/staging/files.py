"""The staging folder: one file for each upload that is arriving or not stored yet, named by the upload's id.

A staged file is garbage as soon as its upload has no row. This module knows only ids, and reads no rows.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from storage.conf import configuration
from storage.exceptions import OutOfSpace, StagingDamaged, StagingUnavailable
from storage.staging.cutting import cut
from storage.staging.pieces import read_pieces


def path(upload_id: uuid.UUID) -> Path:
    """The path of the staged file of an upload."""
    return configuration().staging_dir / str(upload_id)


def create(upload_id: uuid.UUID) -> FileIO:
    """Make the file of an upload whose body begins to arrive.

    Raises:
        OSError: there is no room, the folder is missing, or the file is there already.
    """
    return FileIO(path(upload_id), "xb")


def append(staged: FileIO, data: bytes) -> None:
    """Write all of the bytes at the end of a staged file.

    Raises:
        OSError: there is no room, or the disk has failed.
    """
    view = memoryview(data)
    while view:
        view = view[staged.write(view) :]


def reopen(upload_id: uuid.UUID, offset: int) -> FileIO:
    """Open the file of an upload whose body arrives in several requests, to write at ``offset``.

    The file is made if nothing has arrived yet. The caller cuts off the bytes behind ``offset``, under the file's lock.

    Raises:
        OSError: there is no room, or the folder is missing.
        StagingDamaged: the file is gone or has lost bytes.
    """
    flags = os.O_RDWR | (0 if offset else os.O_CREAT)
    try:
        staged = FileIO(os.open(path(upload_id), flags, 0o666), "r+b")
    except FileNotFoundError:
        if not path(upload_id).parent.is_dir():
            raise
        raise StagingDamaged("the staged bytes are gone") from None
    if staged.seek(0, os.SEEK_END) < offset:
        staged.close()
        raise StagingDamaged("some staged bytes are gone")
    staged.seek(offset)
    return staged


@contextmanager
def alone(staged: FileIO) -> Iterator[None]:
    """Hold the file's lock during the ``with`` block. The kernel releases the lock of a process that dies."""
    fcntl.flock(staged, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(staged, fcntl.LOCK_UN)


@contextmanager
def explaining() -> Iterator[None]:
    """Turn an error of the operating system into an error that says why staging cannot be written to.

    Raises:
        OutOfSpace: staging is full.
        StagingUnavailable: staging is missing or cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"staging has no room for it: {error.strerror}") from error
        raise StagingUnavailable(f"the staging folder cannot be used: {error.strerror}") from error


def sync(upload_id: uuid.UUID) -> None:
    """Make the staged bytes and the name of their file durable. A missing file is no error: its upload is stored."""
    staged = path(upload_id)
    for name, flags in ((staged, os.O_RDONLY), (staged.parent, os.O_RDONLY | os.O_DIRECTORY)):
        try:
            descriptor = os.open(name, flags)
        except FileNotFoundError:
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read(
    upload_id: uuid.UUID, span: range, *, chunk_size: int, piece_size: int, checksums: bytes
) -> Iterator[tuple[str, bytes]]:
    """Read a part of an upload's staged bytes as (chunk hash, bytes) of its chunks, in order.

    Args:
        upload_id: the upload.
        span: the byte positions to read. The first position is the beginning of a piece.
        chunk_size: bytes per chunk.
        piece_size: bytes per piece; each checksum covers one piece.
        checksums: the checksums of the pieces of the span, 4 bytes each.

    Raises:
        StagingDamaged: the staged file is gone. The iterator also raises StagingDamaged if the bytes are not the bytes
            that arrived.
    """
    chunks = cut(pieces(upload_id, span, piece_size, checksums), chunk_size)
    return ((hashlib.sha256(data).hexdigest(), data) for data in chunks)


def pieces(upload_id: uuid.UUID, span: range, piece_size: int, checksums: bytes) -> Iterator[bytes]:
    """Read a part of an upload's staged bytes, piece by piece; arguments and errors are those of ``read``."""
    try:
        staged = path(upload_id).open("rb")
    except FileNotFoundError:
        raise StagingDamaged("the staged bytes are gone") from None
    return read_pieces(staged, span, piece_size, checksums)


def discard(upload_id: uuid.UUID) -> None:
    """Remove the staged bytes of an upload, if there are any."""
    path(upload_id).unlink(missing_ok=True)


def present() -> set[uuid.UUID]:
    """The ids of all uploads that have staged bytes."""
    folder = configuration().staging_dir
    found = set()
    for entry in folder.iterdir() if folder.is_dir() else ():
        with suppress(ValueError):
            found.add(uuid.UUID(entry.name))
    return found
