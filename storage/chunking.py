"""Cutting contents into chunks, and checking that staging gives back what came in. Pure."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from queue import Queue
from threading import Event, Thread
from typing import BinaryIO, TypeVar

from storage.exceptions import StagingDamaged

T = TypeVar("T")


class PieceChecksums:
    """CRC-32 of each run of ``piece_size`` bytes of a stream, fed in parts of any size (RACES 5)."""

    def __init__(self, piece_size: int) -> None:
        self.piece_size = piece_size
        self._done: list[int] = []
        self._current = 0
        self._filled = 0

    def update(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            part = view[: self.piece_size - self._filled]
            self._current = zlib.crc32(part, self._current)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self.piece_size:
                self._done.append(self._current)
                self._current = self._filled = 0

    def packed(self) -> bytes:
        """4 bytes little-endian for each piece, the last one shorter than the others perhaps."""
        checksums = self._done + ([self._current] if self._filled else [])
        return struct.pack(f"<{len(checksums)}I", *checksums)


def read_pieces(staged: BinaryIO, size: int, piece_size: int, checksums: bytes) -> Iterator[bytes]:
    """Read a staged body back, piece by piece, and close it.

    Raises:
        StagingDamaged: a piece is not what came in.
    """
    expected = struct.iter_unpack("<I", checksums)
    left = size
    with staged:
        while left:
            piece = staged.read(min(piece_size, left))
            if not piece or zlib.crc32(piece) != next(expected, (None,))[0]:
                raise StagingDamaged(f"the staged bytes at {size - left} are not what came in")
            left -= len(piece)
            yield piece


def cut(pieces: Iterator[bytes], chunk_size: int) -> Iterator[bytes]:
    """Cut a stream into chunks of ``chunk_size`` bytes, the last one shorter perhaps."""
    pending = bytearray()
    for piece in pieces:
        if not pending and len(piece) == chunk_size:
            yield piece
            continue
        pending += piece
        while len(pending) >= chunk_size:
            yield bytes(pending[:chunk_size])
            del pending[:chunk_size]
    if pending:
        yield bytes(pending)


def read_ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The items in order, up to ``depth`` of them made ahead in a thread of their own.

    Whatever making one raises is raised in its place. The thread ends with the items, or when this is closed.
    """
    waiting: Queue[tuple[T | None, BaseException | None]] = Queue(depth)
    closed = Event()

    def make() -> None:
        try:
            for item in items:
                waiting.put((item, None))
                if closed.is_set():
                    return
            waiting.put((None, StopIteration()))
        except BaseException as error:  # noqa: BLE001  raised again where it is waited for
            waiting.put((None, error))

    Thread(target=make, name="read-ahead", daemon=True).start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # there is one when there is no error
    finally:
        closed.set()
        while not waiting.empty():
            waiting.get_nowait()


def chunk_count(size: int, chunk_size: int) -> int:
    """How many chunks a content of ``size`` bytes has."""
    return -(-size // chunk_size)
