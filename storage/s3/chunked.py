"""The encoding ``aws-chunked`` of bodies: pure.

Sources: "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks", and the same
with trailing headers, in the Amazon S3 API Reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from storage.s3.errors import S3Error
from storage.s3.signatures.chain import Chain

LINE = 4096  # The largest number of bytes of the head of a chunk, or of a line of the trailer.
LINES = 20  # The largest number of lines of a trailer.
SIGNATURE_OF_TRAILER = "x-amz-trailer-signature"

_HEAD = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?")


class ChunkedBody:
    """A body in chunks, which is decoded while it arrives.

    Attributes:
        trailer: the fields after the last chunk, with names in lower case; complete when the last byte has been read.
    """

    def __init__(self, read: Callable[[], bytes], chain: Chain | None, *, has_trailer: bool) -> None:
        """
        Args:
            read: a function that returns the next bytes of the encoded body; no bytes at its end.
            chain: checks the signatures of the chunks; None if they are not signed, or cannot be checked.
            has_trailer: True if fields follow after the last chunk.
        """
        self.trailer: dict[str, str] = {}
        self._read = read
        self._chain = chain
        self._has_trailer = has_trailer
        self._buffer = b""
        self._at = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield the decoded bytes. The signature of a chunk is checked after its last byte has been yielded.

        Raises:
            S3Error: the encoding is malformed, the body has no end, or a signature is wrong.
        """
        while True:
            size, signature = self._head()
            if self._chain is None:
                yield from self._take(size)
            else:
                hashed = self._chain.hash_of_chunk()
                for piece in self._take(size):
                    hashed.update(piece)
                    yield piece
                self._chain.require_chunk(signature, hashed.hexdigest())
            if not size:
                break
            if self._line() != b"":
                raise _malformed("a chunk is longer than its size")
        if self._has_trailer:
            self._read_trailer()
        while self._fill():  # Bytes after the end are read and ignored, so that the connection can be kept.
            self._at = len(self._buffer)

    def _head(self) -> tuple[int, str]:
        line = self._line()
        match = _HEAD.fullmatch(line or b"")
        if match is None:
            raise _malformed("a chunk has no size")
        if self._chain is not None and match[2] is None:
            raise S3Error("SignatureDoesNotMatch", "a chunk of the body has no signature")
        return int(match[1], 16), (match[2] or b"").decode()

    def _take(self, size: int) -> Iterator[bytes]:
        while size:
            if self._at == len(self._buffer) and not self._fill():
                raise _malformed("the body ends within a chunk")
            piece = self._buffer[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def _line(self) -> bytes | None:
        """The next line, without its end; None at the end of the body."""
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            if len(self._buffer) - self._at > LINE:
                raise _malformed("a line is too long")
            if not self._fill():
                rest, self._at = self._buffer[self._at :], len(self._buffer)
                return rest or None
        line = self._buffer[self._at : end]
        self._at = end + 1
        return line.removesuffix(b"\r")

    def _fill(self) -> bool:
        data = self._read()
        self._buffer, self._at = self._buffer[self._at :] + data, 0
        return bool(data)

    def _read_trailer(self) -> None:
        signed: list[bytes] = []
        signature = ""
        for _ in range(LINES):
            line = self._line()
            if line is None:
                break
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon:
                if line:
                    raise _malformed("a line of the trailer is no field")
                continue
            if name.lower() == SIGNATURE_OF_TRAILER:
                signature = value.strip()
                continue
            self.trailer[name.strip().lower()] = value.strip()
            signed.append(f"{name.strip().lower()}:{value.strip()}\n".encode("latin-1"))
        else:
            raise _malformed("the trailer has too many lines")
        if self._chain is not None:
            self._chain.require_trailer(signature, b"".join(signed))


def _malformed(words: str) -> S3Error:
    return S3Error("IncompleteBody", f"the body is not in the encoding aws-chunked: {words}")
