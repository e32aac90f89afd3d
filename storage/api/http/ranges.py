"""``Range`` (RFC 9110 §14): the bytes of a file that a client asks for, and a body of several runs of bytes.

The code does no input or output.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence

from rest_framework.exceptions import APIException

MAX_RANGES = 100  # If a request has more ranges, the whole file is sent.
MAX_FIELD = 4000  # A field with more characters is ignored. Python reads no number of more than 4300 digits.

_SPEC = re.compile(r"([0-9]*)-([0-9]*)")


class RangeNotSatisfiable(APIException):
    """The file has no byte of the requested ranges."""

    status_code = 416
    default_code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes")
        self.headers = {"Content-Range": content_range(None, size)}


def requested(field: str, size: int) -> list[range] | None:
    """The bytes that a ``Range`` field asks for.

    Args:
        field: the value of the field.
        size: the size of the file in bytes.

    Returns:
        Runs of bytes in ascending order; runs that overlap or touch are joined. The list is empty if the file has no
        byte of the requested ranges. None if the field must be ignored: it is malformed, has another unit or asks for
        too many ranges, or the file is empty, and so has no parts.
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
    """The value of ``Content-Range``. If ``wanted`` is None, it is the value for the answer 416."""
    return f"bytes */{size}" if wanted is None else f"bytes {wanted.start}-{wanted.stop - 1}/{size}"


class Multipart:
    """A body of several ranges: ``multipart/byteranges`` (RFC 9110 §14.6)."""

    def __init__(self, ranges: Sequence[range], size: int, content_type: str) -> None:
        """Make the boundary and the heads of the parts.

        Args:
            ranges: runs of bytes of the file.
            size: the size of the file in bytes.
            content_type: the media type of the file.
        """
        boundary = secrets.token_hex(16)  # Nobody can guess the boundary, so no file can contain it.
        self.content_type = f"multipart/byteranges; boundary={boundary}"
        self._ranges = ranges
        self._heads = [
            f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n"
            f"Content-Range: {content_range(wanted, size)}\r\n\r\n".encode()
            for wanted in ranges
        ]
        self._end = f"\r\n--{boundary}--\r\n".encode()

    def __len__(self) -> int:
        """The size of the body in bytes."""
        return sum(map(len, self._heads)) + sum(map(len, self._ranges)) + len(self._end)

    def body(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Put the bytes of the ranges between the heads of the parts.

        Args:
            pieces: the bytes of all ranges, in order. No piece belongs to two ranges.
        """
        for head, wanted in zip(self._heads, self._ranges, strict=True):
            yield head
            left = len(wanted)
            while left:
                piece = next(pieces)
                left -= len(piece)
                yield piece
        yield self._end
