"""Pieces of a staged body, each with a checksum: what staging gives back is what came in (RACES 5). Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from zlib_ng.zlib_ng import crc32  # zlib's, five times as fast

from storage.exceptions import StagingDamaged


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
            self._current = crc32(part, self._current)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self.piece_size:
                self._done.append(self._current)
                self._current = self._filled = 0

    def of(self, pieces: range) -> bytes:
        """As ``packed``, of some pieces that have come in whole."""
        done = self._done[pieces.start : pieces.stop]
        return struct.pack(f"<{len(done)}I", *done)

    def packed(self) -> bytes:
        """4 bytes little-endian for each piece, the last one shorter than the others perhaps."""
        checksums = self._done + ([self._current] if self._filled else [])
        return struct.pack(f"<{len(checksums)}I", *checksums)


def read_pieces(staged: BinaryIO, span: range, piece_size: int, checksums: bytes) -> Iterator[bytes]:
    """Read some of a staged body back, piece by piece, and close it.

    Args:
        staged: the body.
        span: which of its bytes; begins with a piece.
        piece_size: in bytes.
        checksums: of the pieces of the span.

    Raises:
        StagingDamaged: a piece is not what came in.
    """
    expected = struct.iter_unpack("<I", checksums)
    with staged:
        staged.seek(span.start)
        while span:
            piece = staged.read(min(piece_size, len(span)))
            if not piece or crc32(piece) != next(expected, (None,))[0]:
                raise StagingDamaged(f"the staged bytes at {span.start} are not what came in")
            span = span[len(piece) :]
            yield piece
