"""The body of a request while it arrives: its encoding, and the checks that it has arrived unchanged."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from storage.api.uploads.bodies import BodyStream, require_length
from storage.conf import configuration
from storage.s3 import checksums, documents
from storage.s3.checksums import USUAL
from storage.s3.chunked import ChunkedBody
from storage.s3.errors import S3Error
from storage.s3.request import Request
from storage.s3.signatures.claim import UNSIGNED

SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
UNSIGNED_CHUNKS = "STREAMING-UNSIGNED-PAYLOAD"
TRAILER = "-TRAILER"
CHUNK_OVERHEAD = 16  # The encoding in chunks may add 1/16 of the largest size of a body, and 1 MiB.

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Digests:
    """The checksums that were computed while a body arrived.

    Attributes:
        md5: the MD5 in hex, which is the ETag.
        checksums: the checksums as S3 writes them: algorithm → Base64. The checksum ``USUAL`` is always among them, so
            that no later copy has to read the bytes for this checksum.
        told: the algorithm whose checksum the answer has.
    """

    md5: str
    checksums: dict[str, str]
    told: str = USUAL


class IncomingBody:
    """The body of one request: the header fields are checked at once, the bytes while they arrive.

    Attributes:
        size: the number of bytes that the client announces, without the encoding; 0 if the client announces none.
    """

    def __init__(self, request: Request, *, algorithms: Iterable[str] = ()) -> None:
        """
        Args:
            request: the request.
            algorithms: checksums to compute in addition to those that the client sends.

        Raises:
            S3Error: a header field is malformed, or contradicts another one.
            LengthRequired: the client does not say how long the body is.
        """
        if request.form is None:
            require_length(request.environ)
        self._stream = request.form or BodyStream(request.environ)
        self._request = request
        payload = request.payload or UNSIGNED
        self._is_chunked = payload.startswith("STREAMING-")
        self._has_trailer = self._is_chunked and payload.endswith(TRAILER)
        if self._is_chunked and payload.removesuffix(TRAILER) not in (SIGNED_CHUNKS, UNSIGNED_CHUNKS):
            raise S3Error("NotImplemented", f"{payload} is not implemented")
        self._is_signed = payload.startswith(SIGNED_CHUNKS)
        self._sha256 = _expected_sha256(payload) if not self._is_chunked else None
        self._md5 = _expected_md5(request.header("content-md5"))
        self._sums = _expected_checksums(request)
        self._promised = _promised(request) if self._has_trailer else None
        named = [*self._sums, *([self._promised] if self._promised else [])]
        self._told = named[0] if named else USUAL
        self._algorithms = dict.fromkeys((*named, *algorithms, USUAL))
        self.size = self._decoded_size()

    def _decoded_size(self) -> int:
        if not self._is_chunked:
            return self._stream.declared or 0
        text = self._request.header("x-amz-decoded-content-length") or ""
        if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
            raise S3Error("MissingContentLength", "x-amz-decoded-content-length is missing, or no number")
        return int(text)

    def receive(self, write: Callable[[bytes], object], sha256: Callable[[], bytes]) -> Digests:
        """Read the body to its end.

        Args:
            write: a function that takes the bytes.
            sha256: a function that returns the SHA-256 of all bytes that were written.

        Raises:
            S3Error: the body is not what the client announced.
            StorageError: the body is too large, is cut, or stalls.
        """
        limit = configuration().max_upload_size
        self._stream.allow(limit + limit // CHUNK_OVERHEAD + (1 << 20) if self._is_chunked else limit)
        md5 = hashlib.md5(usedforsecurity=False)
        sums = {name: checksums.begin(name) for name in self._algorithms if name != "SHA256"}
        received = 0
        pieces, trailer = self._pieces()
        for piece in pieces:
            received += len(piece)
            if self._is_chunked and received > self.size:
                break
            write(piece)
            md5.update(piece)
            for checksum in sums.values():
                checksum.update(piece)
        if self._is_chunked and received != self.size:
            raise S3Error("IncompleteBody", f"the body has {received} bytes, and {self.size} were announced")
        if self._promised:
            self._sums[self._promised] = _sent_in(trailer, self._promised)
        digests = {name: checksum.digest() for name, checksum in sums.items()}
        if "SHA256" in self._algorithms:
            digests["SHA256"] = sha256()
        self._require(md5.digest(), sha256, digests)
        encoded = {name: checksums.encode(value) for name, value in digests.items()}
        return Digests(md5.hexdigest(), encoded, self._told)

    def _pieces(self) -> tuple[Iterable[bytes], dict[str, str]]:
        if not self._is_chunked:
            return iter(self._stream.read, b""), {}
        chain = self._request.chain if self._is_signed else None
        body = ChunkedBody(self._stream.read, chain, has_trailer=self._has_trailer)
        return body, body.trailer

    def _require(self, md5: bytes, sha256: Callable[[], bytes], digests: dict[str, bytes]) -> None:
        if self._sha256 is not None and not hmac.compare_digest(self._sha256, sha256()):
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            )
        if self._md5 is not None and self._md5 != md5:
            raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")
        for name, expected in self._sums.items():
            if digests[name] != expected:
                raise S3Error("BadDigest", f"The {name} you specified did not match the calculated checksum.")


def document(request: Request, name: str) -> documents.Node:
    """Read the XML document that is the body of a request.

    Args:
        request: the request.
        name: the name of the document's root.

    Raises:
        S3Error: the document is malformed or too large.
    """
    return documents.parse(whole(request), name)


def whole(request: Request) -> bytes:
    """All bytes of a small body.

    Raises:
        S3Error: the body is too large, or not what the client announced.
    """
    body = IncomingBody(request)
    gathered: list[bytes] = []
    hashed = hashlib.sha256()
    room = documents.LARGEST

    def write(data: bytes) -> None:
        nonlocal room
        room -= len(data)
        if room < 0:
            raise S3Error("EntityTooLarge", f"a document has at most {documents.LARGEST} bytes")
        gathered.append(data)
        hashed.update(data)

    body.receive(write, hashed.digest)
    return b"".join(gathered)


def _expected_sha256(payload: str) -> bytes | None:
    if payload == UNSIGNED:
        return None
    if not _DIGEST.fullmatch(payload):
        raise S3Error(
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, one of the streaming values or a valid sha256 value.",
        )
    return bytes.fromhex(payload)


def _expected_md5(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        found = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != 16:
        raise S3Error("InvalidDigest", "The Content-MD5 you specified is not valid.")
    return found


def _expected_checksums(request: Request) -> dict[str, bytes]:
    """The checksums that the client sends in header fields: at most one."""
    found = {}
    for name in checksums.SIZES:
        if (text := request.header(checksums.field_of(name))) is not None:
            found[name] = checksums.decode(name, text)
    if len(found) > 1:
        raise S3Error(
            "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    return found


def _promised(request: Request) -> str | None:
    """The algorithm of the checksum that the trailer will have; None if the trailer will have no checksum."""
    names = [name.strip() for name in (request.header("x-amz-trailer") or "").split(",")]
    found = [algorithm for name in names if (algorithm := checksums.of_field(name)) is not None]
    if len(found) > 1:
        raise S3Error("InvalidRequest", "the trailer has one checksum at most")
    if any(name for name in names) and not found:
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    return found[0] if found else None


def _sent_in(trailer: dict[str, str], name: str) -> bytes:
    if (text := trailer.get(checksums.field_of(name))) is None:
        raise S3Error("InvalidRequest", f"the trailer has no {checksums.field_of(name)}")
    return checksums.decode(name, text)
