"""Pieces of a staged body, each with a checksum, to prove that staging gives back the bytes that arrived (RACES 5).

Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from zlib_ng.zlib_ng import crc32  # This is the CRC-32 of zlib, computed five times as fast.

from storage.exceptions import StagingDamaged


class PieceChecksums:
    """Computes the CRC-32 of each piece of ``piece_size`` bytes of a stream.

    The stream may come in parts of any size (RACES 5).
    """

    def __init__(self, piece_size: int) -> None:
        self.piece_size = piece_size
        self._done: list[int] = []
        self._current = 0
        self._filled = 0

    @classmethod
    def resumed(cls, piece_size: int, whole: bytes, current: int, filled: int) -> PieceChecksums:
        """Go on where another process has stopped.

        Args:
            piece_size: bytes per piece.
            whole: the checksums of the whole pieces that were not forgotten (``forget``), in the format of ``packed``.
            current: the checksum of the piece that has begun to arrive.
            filled: the bytes that have arrived of the piece that has begun to arrive.
        """
        checksums = cls(piece_size)
        checksums._done = [checksum for (checksum,) in struct.iter_unpack("<I", whole)]
        checksums._current, checksums._filled = current, filled
        return checksums

    @property
    def current(self) -> int:
        """The checksum of the piece that has begun to arrive."""
        return self._current

    def whole(self) -> bytes:
        """The checksums of the pieces that have arrived completely, in the format of ``packed``."""
        return self.of(range(len(self._done)))

    def forget(self, pieces: int) -> None:
        """Forget the checksums of the first ``pieces`` pieces, because they have been recorded elsewhere."""
        del self._done[:pieces]

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
        """The checksums of some pieces that have arrived completely, in the format of ``packed``."""
        done = self._done[pieces.start : pieces.stop]
        return struct.pack(f"<{len(done)}I", *done)

    def packed(self) -> bytes:
        """The checksums of all pieces, 4 bytes little-endian each. The last piece may be shorter than the others."""
        checksums = self._done + ([self._current] if self._filled else [])
        return struct.pack(f"<{len(checksums)}I", *checksums)


def read_pieces(staged: BinaryIO, span: range, piece_size: int, checksums: bytes) -> Iterator[bytes]:
    """Read a part of a staged body, piece by piece, and close its file.

    Args:
        staged: the open file of the body.
        span: the byte positions to read. The first position is the beginning of a piece.
        piece_size: bytes per piece.
        checksums: the checksums of the pieces of the span, 4 bytes each.

    Raises:
        StagingDamaged: a piece does not have its checksum.
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
