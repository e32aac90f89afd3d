"""The format of a pack: one block that names the volume, and then records, each at a multiple of ``BLOCK``.

A record is a header, a mark and the stored bytes of one chunk. The header never changes. The mark says if the record
lies in the trash or in quarantine. The mark is a copy of what the index says, so a lost index can be made again from
the packs.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from zlib_ng import zlib_ng

BLOCK = 4096  # bytes: a file system frees holes of this size
VERSION = 1

_PACK = struct.Struct("<4sB3x32sI")  # magic, version, fingerprint, CRC of the fields before
_PACK_MAGIC = b"OCCP"
_HEADER = struct.Struct("<4sBB2x32sQQII")  # magic, version, codec, hash, stored, size, CRC of the bytes, of the header
_HEADER_MAGIC = b"OCCR"
_MARK = struct.Struct("<BB2x56sI")  # state, length of the token, token, CRC of the fields before
_LONGEST_TOKEN = 56  # bytes
DATA = _HEADER.size + _MARK.size  # A record's stored bytes begin at this offset.
_CRC = 4  # bytes at the end of each structure


class State(IntEnum):
    """What a record is: a replica, a replica in the trash, or one in quarantine."""

    LIVE = 0
    TRASHED = 1
    QUARANTINED = 2


class Codec(IntEnum):
    """How the bytes of a chunk are stored."""

    RAW = 0
    ZSTD = 1


@dataclass(frozen=True)
class Header:
    """The header of a record.

    Attributes:
        chunk_hash: SHA-256 of the chunk's plain bytes, in hex.
        codec: how the bytes are stored.
        stored: the number of stored bytes.
        size: the number of plain bytes.
        crc: CRC-32 of the stored bytes.
    """

    chunk_hash: str
    codec: Codec
    stored: int
    size: int
    crc: int

    @property
    def span(self) -> int:
        """The bytes that the record takes in its pack."""
        return span(self.stored)


def span(stored: int) -> int:
    """The bytes that a record of ``stored`` bytes takes in its pack."""
    return -(-(DATA + stored) // BLOCK) * BLOCK


def fingerprint(cluster: str, node: str) -> bytes:
    """The 32 bytes by which packs and index name the volume that they belong to."""
    return hashlib.sha256(f"{cluster} {node}".encode()).digest()


def pack_block(volume: bytes) -> bytes:
    """The first block of a pack of the volume with this fingerprint."""
    return _sealed(_PACK, _PACK_MAGIC, VERSION, volume).ljust(BLOCK, b"\0")


def pack_volume(block: bytes) -> bytes | None:
    """The fingerprint in the first block of a pack; None if the block is not whole."""
    fields = _opened(_PACK, block)
    return fields[2] if fields and fields[:2] == (_PACK_MAGIC, VERSION) else None


def encode(chunk_hash: str, codec: Codec, stored: bytes, size: int) -> list[bytes]:
    """The byte strings of a record, to be written one after the other."""
    header = _sealed(
        _HEADER, _HEADER_MAGIC, VERSION, codec, bytes.fromhex(chunk_hash), len(stored), size, zlib_ng.crc32(stored)
    )
    padding = span(len(stored)) - DATA - len(stored)
    return [header + bytes(_MARK.size), stored, bytes(padding)]


def decode(block: bytes) -> Header | None:
    """The header at the beginning of the bytes; None if there is no whole header."""
    fields = _opened(_HEADER, block)
    if not fields or fields[:2] != (_HEADER_MAGIC, VERSION) or fields[2] not in tuple(Codec):
        return None
    _, _, codec, digest, stored, size, crc, _ = fields
    return Header(digest.hex(), Codec(codec), stored, size, crc)


def encode_mark(state: State, token: str) -> bytes | None:
    """The bytes of a mark, which lie at ``MARK_OFFSET`` of a record; None if the token is too long for a mark."""
    data = token.encode()
    return _sealed(_MARK, state, len(data), data) if len(data) <= _LONGEST_TOKEN else None


MARK_OFFSET = _HEADER.size


def decode_mark(record: bytes) -> tuple[State, str]:
    """State and token in the mark of a record; a mark that is not whole says that the record is live."""
    fields = _opened(_MARK, record[MARK_OFFSET:DATA])
    if not fields or fields[0] not in tuple(State):
        return State.LIVE, ""
    return State(fields[0]), fields[2][: fields[1]].decode(errors="replace")


def _sealed(structure: struct.Struct, *fields: object) -> bytes:
    """Pack the fields, and their CRC behind them."""
    data = structure.pack(*fields, 0)[:-_CRC]
    return data + struct.pack("<I", zlib_ng.crc32(data))


def _opened(structure: struct.Struct, data: bytes) -> tuple[Any, ...] | None:
    """Unpack fields, with the CRC as the last one; None if the data is too short or has another CRC."""
    if len(data) < structure.size:
        return None
    fields = structure.unpack_from(data)
    return fields if fields[-1] == zlib_ng.crc32(data[: structure.size - _CRC]) else None
