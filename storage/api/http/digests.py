"""``Content-Digest`` and ``Repr-Digest`` (RFC 9530), for SHA-256."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from storage.exceptions import InvalidRequest

# Both fields are about the same bytes, because a body with a content coding is refused.
FIELDS = ("Content-Digest", "Repr-Digest")
ALGORITHM = "sha-256"

_VALUE = re.compile(r":([A-Za-z0-9+/]*=*):[ \t]*(?:;.*)?")  # a byte sequence and its parameters (RFC 9651)


def digest_field(digest: bytes) -> str:
    """The value of a header field that states ``digest``, a SHA-256 of 32 bytes."""
    return f"{ALGORITHM}=:{base64.b64encode(digest).decode()}:"


def claimed(headers: Mapping[str, str]) -> dict[str, bytes]:
    """Field name → the SHA-256 (32 bytes) that the client claims for the body. Other algorithms are ignored.

    Raises:
        InvalidRequest: a claimed value is not a SHA-256.
    """
    found = {}
    for field in FIELDS:
        for member in headers.get(field, "").split(","):
            key, _, value = member.strip().partition("=")
            if key.lower() == ALGORITHM:
                found[field] = _read(field, value)
    return found


def require(claims: Mapping[str, bytes], digest: bytes) -> None:
    """Check the claims against ``digest``, the SHA-256 of the body.

    Raises:
        InvalidRequest: the body has another digest than the client claimed.
    """
    for field, claim in claims.items():
        if claim != digest:
            raise InvalidRequest(f"the body does not have the {field}", {field: [f"It has {digest_field(digest)}"]})


def _read(field: str, value: str) -> bytes:
    match = _VALUE.fullmatch(value)
    try:
        digest = base64.b64decode(match[1], validate=True) if match else b""
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise InvalidRequest(f"{field} is malformed", {field: [f"Write {ALGORITHM}=:BASE64:, of 32 bytes."]})
    return digest
