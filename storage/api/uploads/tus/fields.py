"""Pure functions that read the header fields of tus 1.0 and of the IETF draft."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from storage.exceptions import InvalidRequest, UnsupportedProtocol
from storage.services.resumable import Proof

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,termination,expiration,checksum,concatenation"
DRAFT = "6"  # the interop version of draft-ietf-httpbis-resumable-upload-05
DRAFT_FIELD = "HTTP_UPLOAD_DRAFT_INTEROP_VERSION"
TUS_BODY, DRAFT_BODY = "application/offset+octet-stream", "application/partial-upload"
ALGORITHMS = ("md5", "sha1", "sha256", "sha512")
METADATA_LIMIT = 4096
PARTS_LIMIT = 1000

_KEY = re.compile(r"[!-+.-~-]+")  # printable ASCII without a comma and without a space
_NUMBER = re.compile(r"[0-9]{1,16}")


def is_draft(environ: Mapping[str, Any]) -> bool:
    """True if a request speaks the IETF's draft, False if it speaks tus.

    Raises:
        UnsupportedProtocol: the request speaks another version of tus or of the draft, or names no version.
    """
    draft = environ.get(DRAFT_FIELD)
    if draft is not None:
        if draft != DRAFT:
            raise UnsupportedProtocol(f"version {DRAFT} is known", {"Upload-Draft-Interop-Version": DRAFT})
        return True
    if environ.get("HTTP_TUS_RESUMABLE") != VERSION:
        detail = f"send Tus-Resumable: {VERSION}, or Upload-Draft-Interop-Version: {DRAFT}"
        raise UnsupportedProtocol(detail, {"Tus-Version": VERSION})
    return False


def number(environ: Mapping[str, Any], field: str) -> int | None:
    """The whole number in a field such as ``Upload-Offset``; None without the field.

    Raises:
        InvalidRequest: the value is not a number of bytes.
    """
    text = environ.get(_key(field))
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise InvalidRequest(f"{field} is malformed", {field: ["A number of bytes."]})
    return int(text)


def truth(environ: Mapping[str, Any], field: str) -> bool | None:
    """The boolean (RFC 9651) in a field such as ``Upload-Complete``; None without the field.

    Raises:
        InvalidRequest: the value is not a boolean.
    """
    text = environ.get(_key(field))
    if text not in (None, "?0", "?1"):
        raise InvalidRequest(f"{field} is malformed", {field: ["?0 or ?1."]})
    return None if text is None else text == "?1"


def metadata(text: str) -> dict[str, bytes]:
    """The keys and values of ``Upload-Metadata``.

    Raises:
        InvalidRequest: the field is malformed or too long.
    """
    if len(text) > METADATA_LIMIT:
        raise InvalidRequest("Upload-Metadata is too long", {"Upload-Metadata": [f"At most {METADATA_LIMIT} bytes."]})
    found: dict[str, bytes] = {}
    for pair in text.split(",") if text.strip() else ():
        key, _, value = pair.strip(" ").partition(" ")
        try:
            decoded = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            decoded = None
        if decoded is None or not _KEY.fullmatch(key) or key in found:
            raise InvalidRequest("Upload-Metadata is malformed", {"Upload-Metadata": ["Pairs of a key and Base64."]})
        found[key] = decoded
    return found


def parts(text: str) -> list[str]:
    """The ids of the uploads in the addresses of ``Upload-Concat: final;…``.

    Raises:
        InvalidRequest: the field is malformed, or names no upload or too many.
    """
    kind, _, addresses = text.partition(";")
    found = [urlsplit(address).path.rstrip("/").rpartition("/")[2] for address in addresses.split()]
    if kind.strip() != "final" or not 0 < len(found) <= PARTS_LIMIT:
        problem = f"partial, or final; and the addresses of 1 to {PARTS_LIMIT} uploads."
        raise InvalidRequest("Upload-Concat is malformed", {"Upload-Concat": [problem]})
    return found


def proof(text: str | None) -> Proof | None:
    """The digest in ``Upload-Checksum``; None without the field.

    Raises:
        InvalidRequest: the field is malformed, or its algorithm is not known.
    """
    if text is None:
        return None
    algorithm, _, value = text.partition(" ")
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if algorithm not in ALGORITHMS or not digest:
        problem = f"One of {', '.join(ALGORITHMS)}, and Base64."
        raise InvalidRequest("Upload-Checksum is malformed", {"Upload-Checksum": [problem]})
    return Proof(algorithm, digest)


def _key(field: str) -> str:
    return "HTTP_" + field.upper().replace("-", "_")
