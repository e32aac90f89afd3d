"""Cutting contents into chunks. Pure."""

from __future__ import annotations

from collections.abc import Iterator


def cut(pieces: Iterator[bytes], chunk_size: int) -> Iterator[bytes]:
    """Cut a stream into chunks of ``chunk_size`` bytes. The last chunk may be shorter."""
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


def chunk_count(size: int, chunk_size: int) -> int:
    """How many chunks a content of ``size`` bytes has."""
    return -(-size // chunk_size)
