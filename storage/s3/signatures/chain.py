"""The signatures of the chunks of a body: each covers the chunk and the signature of the chunk before."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from storage.s3.errors import S3Error
from storage.s3.signatures import canonical


class Chain:
    """The chain of the signatures of one body, which begins with the signature of the request."""

    def __init__(self, time: str, scope: str, signature: str, key: bytes) -> None:
        """
        Args:
            time: the time at which the client signed, as ``YYYYMMDDTHHMMSSZ``.
            scope: the scope of the credential.
            signature: the signature of the request.
            key: the key that signs the request and the chunks.
        """
        self._time = time
        self._scope = scope
        self._last = signature
        self._key = key

    def hash_of_chunk(self) -> Any:
        """A new SHA-256, which takes the bytes of the next chunk."""
        return hashlib.sha256()

    def require_chunk(self, signature: str, digest: str) -> None:
        """Check the signature of the next chunk.

        Args:
            signature: the signature that came with the chunk.
            digest: the SHA-256 of the chunk in hex.

        Raises:
            S3Error: the signature is wrong.
        """
        self._require(signature, f"{canonical.ALGORITHM}-PAYLOAD", canonical.EMPTY, digest)

    def require_trailer(self, signature: str, trailer: bytes) -> None:
        """Check the signature of the trailer.

        Args:
            signature: the signature that came with the trailer.
            trailer: the lines of the trailer, each with a line feed at its end.

        Raises:
            S3Error: the signature is wrong.
        """
        self._require(signature, f"{canonical.ALGORITHM}-TRAILER", hashlib.sha256(trailer).hexdigest())

    def _require(self, signature: str, kind: str, *digests: str) -> None:
        text = "\n".join((kind, self._time, self._scope, self._last, *digests))
        expected = canonical.sign(self._key, text)
        if not hmac.compare_digest(expected.encode(), signature.encode("latin-1", "replace")):
            raise S3Error("SignatureDoesNotMatch", "a chunk of the body does not have the signature of this key")
        self._last = expected
