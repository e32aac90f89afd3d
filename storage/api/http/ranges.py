"""``Range`` (RFC 9110 §14): which bytes of a file are asked for, and how several runs of them are sent. Pure."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence

MAX_RANGES = 100  # asked for at once; with more the whole file is sent
MAX_FIELD = 4000  # characters; no longer number can be read

_SPEC = re.compile(r"([0-9]*)-([0-9]*)")


def requested(field: str, size: int) -> list[range] | None:
    """The bytes that a ``Range`` field asks for.

    Args:
        field: its value.
        size: bytes of the file.

    Returns:
        Runs of bytes, ascending, those that overlap or touch joined; none if the file has nothing of what is asked for;
        None if the field is to be ignored: it is malformed, of another unit, asks for too many ranges, or the file is
        empty, of which there are no parts.
    """
    unit, _, text = field.partition("=")
    specs = [spec for spec in (element.strip(" \t") for element in text.split(",")) if spec]
    if unit.lower() != "bytes" or not specs or len(specs) > MAX_RANGES or len(field) > MAX_FIELD or not size:
        return None
    found = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or spec == "-":
            return None
        first, last = match.groups()
        if first and last and int(last) < int(first):
            return None
        if first:
            found.append(range(int(first), min(int(last) + 1, size) if last else size))
        else:
            found.append(range(max(0, size - int(last)), size))
    return _joined([wanted for wanted in found if wanted])


def _joined(ranges: list[range]) -> list[range]:
    joined: list[range] = []
    for wanted in sorted(ranges, key=lambda wanted: wanted.start):
        if joined and wanted.start <= joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, wanted.stop))
        else:
            joined.append(wanted)
    return joined


def content_range(wanted: range | None, size: int) -> str:
    """The value of ``Content-Range``; without a range, of an answer that none can be had."""
    return f"bytes */{size}" if wanted is None else f"bytes {wanted.start}-{wanted.stop - 1}/{size}"


class Multipart:
    """A body of several ranges: ``multipart/byteranges`` (RFC 9110 §14.6)."""

    def __init__(self, ranges: Sequence[range], size: int, content_type: str) -> None:
        """
        Args:
            ranges: runs of bytes.
            size: bytes of the file that they are of.
            content_type: the file's.
        """
        boundary = secrets.token_hex(16)  # unguessable: no file can contain it
        self.content_type = f"multipart/byteranges; boundary={boundary}"
        self._ranges = ranges
        self._heads = [
            f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n"
            f"Content-Range: {content_range(wanted, size)}\r\n\r\n".encode()
            for wanted in ranges
        ]
        self._end = f"\r\n--{boundary}--\r\n".encode()

    def __len__(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self._heads)) + sum(map(len, self._ranges)) + len(self._end)

    def body(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Put the bytes of the ranges, of which no piece belongs to two, between the parts' heads."""
        for head, wanted in zip(self._heads, self._ranges, strict=True):
            yield head
            left = len(wanted)
            while left:
                piece = next(pieces)
                left -= len(piece)
                yield piece
        yield self._end
