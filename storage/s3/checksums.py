"""The checksums that S3's clients send and ask for: pure.

Source: "Checking object integrity" in the Amazon S3 User Guide. A checksum is written in Base64, most significant byte
first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import anycrc
from zlib_ng.zlib_ng import crc32

from storage.s3.errors import S3Error

PREFIX = "x-amz-checksum-"
FULL, COMPOSITE = "FULL_OBJECT", "COMPOSITE"
USUAL = "CRC64NVME"  # S3 computes this checksum if the client sends none.

_CRC32C = anycrc.Model("CRC32-ISCSI")
_CRC64 = anycrc.Model("CRC64-NVME")
_CRC32 = anycrc.Model("CRC32")


class Checksum(Protocol):
    """A checksum that is computed while the bytes arrive, with the methods of a hash of hashlib."""

    def update(self, data: bytes, /) -> object: ...
    def digest(self) -> bytes: ...


class _Crc:
    """A cyclic redundancy check."""

    def __init__(self, go_on: Callable[[bytes, int], int], size: int) -> None:
        self._go_on = go_on
        self._size = size
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._go_on(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def _resumed(model: Any) -> Callable[[bytes, int], int]:
    return lambda data, value: model.calc(data, value)


_MAKERS: Mapping[str, Callable[[], Checksum]] = {
    "CRC32": lambda: _Crc(crc32, 4),
    "CRC32C": lambda: _Crc(_resumed(_CRC32C), 4),
    "CRC64NVME": lambda: _Crc(_resumed(_CRC64), 8),
    "SHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "SHA256": hashlib.sha256,
}
SIZES: Mapping[str, int] = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}
_JOINED: Mapping[str, Any] = {"CRC32": _CRC32, "CRC32C": _CRC32C, "CRC64NVME": _CRC64}


def algorithm(name: str) -> str:
    """The algorithm that a client names, in upper case.

    Raises:
        S3Error: no such algorithm is known.
    """
    if name.upper() not in _MAKERS:
        raise S3Error("InvalidRequest", f"Checksum algorithm provided is unsupported: {', '.join(_MAKERS)} are known")
    return name.upper()


def of_field(field: str) -> str | None:
    """The algorithm of a header field such as ``x-amz-checksum-crc32``; None for any other field."""
    name = field.lower().removeprefix(PREFIX).upper()
    return name if field.lower().startswith(PREFIX) and name in _MAKERS else None


def field_of(name: str) -> str:
    """The header field for an algorithm."""
    return PREFIX + name.lower()


def begin(name: str) -> Checksum:
    """A checksum of no bytes yet, of a known algorithm."""
    return _MAKERS[name]()


def decode(name: str, text: str) -> bytes:
    """The bytes of a checksum that a client sent.

    Raises:
        S3Error: the text is not Base64, or has the wrong length.
    """
    try:
        found = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != SIZES[name]:
        raise S3Error("BadDigest", f"Value for {field_of(name)} header is invalid.")
    return found


def encode(value: bytes) -> str:
    """A checksum as it is written in fields and documents."""
    return base64.b64encode(value).decode()


def composite(name: str, parts: Iterable[bytes]) -> str:
    """The checksum of the checksums of the parts, followed by the number of the parts."""
    values = list(parts)
    return f"{encode(_digest_of(name, b''.join(values)))}-{len(values)}"


def joined(name: str, parts: Iterable[tuple[bytes, int]]) -> str:
    """The checksum of all bytes, from the checksums and sizes of the parts. Only CRCs can be joined.

    Args:
        name: CRC32, CRC32C or CRC64NVME.
        parts: the checksum and the size in bytes of each part, in order.
    """
    value = 0
    for checksum, size in parts:
        value = _JOINED[name].combine(value, int.from_bytes(checksum, "big"), size)
    return encode(value.to_bytes(SIZES[name], "big"))


def kind_of(name: str, wanted: str | None) -> str:
    """How the checksum of a multipart upload is made: FULL_OBJECT or COMPOSITE.

    Raises:
        S3Error: the algorithm and the wanted kind do not go together.
    """
    usual = FULL if name == "CRC64NVME" else COMPOSITE
    kind = (wanted or usual).upper()
    if (
        kind not in (FULL, COMPOSITE)
        or (kind == FULL) > (name in _JOINED)
        or (kind == COMPOSITE and name == "CRC64NVME")
    ):
        raise S3Error(
            "InvalidRequest", f"The {kind} checksum type cannot be used with the {name.lower()} checksum algorithm."
        )
    return kind


def _digest_of(name: str, data: bytes) -> bytes:
    checksum = begin(name)
    checksum.update(data)
    return checksum.digest()
