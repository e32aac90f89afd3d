"""Compress chunks. A chunk keeps the name of its plain bytes, whatever is stored."""

from __future__ import annotations

import threading
from collections import OrderedDict

import zstandard

from storage.volumes.packs.records import Codec

LEVEL = 1
WORTH = 0.9  # Compressed bytes are stored if they are at most this share of the plain bytes.
SAMPLE = 2048  # bytes of each sample
SAMPLES = 4
LOOKED_AT = 16 * SAMPLE * SAMPLES  # Chunks below this size are compressed without trying samples.
REMEMBERED = 16 << 20  # bytes of chunks that this process keeps compressed

_mine = threading.local()


class Compressor:
    """Compresses chunks, and remembers the latest results: a chunk goes to several nodes at about the same time."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all chunks and make new locks, in a child whose parent may have had the locks at the fork."""
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        self._done: OrderedDict[str, tuple[Codec, bytes]] = OrderedDict()
        self._bytes = 0

    def shrink(self, chunk_hash: str, data: bytes) -> tuple[Codec, bytes]:
        """The codec and the bytes to store. If compression saves too little, these are the plain bytes.

        Args:
            chunk_hash: the name of the bytes.
            data: the plain bytes.
        """
        with self._lock:
            if chunk_hash in self._done:
                return self._done[chunk_hash]
            turn = self._busy.setdefault(chunk_hash, threading.Lock())
        with turn:  # While one thread compresses a chunk, other threads wait here, and then take that thread's result.
            with self._lock:
                if chunk_hash in self._done:
                    return self._done[chunk_hash]
            result = _shrink(data)
            with self._lock:
                self._busy.pop(chunk_hash, None)
                self._done[chunk_hash] = result
                self._bytes += len(result[1])
                while self._bytes > REMEMBERED and len(self._done) > 1:
                    _, (_, oldest) = self._done.popitem(last=False)
                    self._bytes -= len(oldest)
        return result


def expand(codec: Codec, stored: bytes, size: int) -> bytes:
    """The plain bytes. Damaged bytes are returned as they are: their hash will be wrong.

    Args:
        codec: how the bytes are stored.
        stored: the stored bytes.
        size: the number of plain bytes.
    """
    if codec is Codec.RAW:
        return stored
    try:
        # The size in a damaged frame could be anything. Only the size in the record's header decides how much memory is
        # taken.
        if zstandard.frame_content_size(stored) != size:
            return stored
        return _decompressor().decompress(stored)
    except zstandard.ZstdError:
        return stored


def _shrink(data: bytes) -> tuple[Codec, bytes]:
    if _looks_dense(data):
        return Codec.RAW, data
    compressed = _compressor().compress(data)
    return (Codec.ZSTD, compressed) if len(compressed) <= WORTH * len(data) else (Codec.RAW, data)


def _looks_dense(data: bytes) -> bool:
    """Tell whether samples of a large chunk do not shrink: then compressing the whole chunk is not worth a try."""
    if len(data) < LOOKED_AT:
        return False
    step = len(data) // SAMPLES
    sample = b"".join(data[start : start + SAMPLE] for start in range(0, SAMPLES * step, step))
    return len(_compressor().compress(sample)) > WORTH * len(sample)


def _compressor() -> zstandard.ZstdCompressor:
    found: zstandard.ZstdCompressor | None = getattr(_mine, "compressor", None)
    if found is None:
        found = _mine.compressor = zstandard.ZstdCompressor(LEVEL)
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_mine, "decompressor", None)
    if found is None:
        found = _mine.decompressor = zstandard.ZstdDecompressor()
    return found
