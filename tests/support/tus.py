"""A client of tus 1.0 and of the IETF draft, without a network."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlsplit

from django.test import Client

from tests.support.api import WholeClient

TUS = {"tus_resumable": "1.0.0"}
DRAFT = {"upload_draft_interop_version": "6"}


def tus(
    method: str,
    path: str,
    data: bytes = b"",
    *,
    keys: dict[str, str] | None = None,
    protocol: dict[str, str] = TUS,
    source: Any = None,
    content_length: int | None = None,
    **fields: Any,
) -> Any:
    """Send one request. Header fields are named as in Python: ``upload_offset``.

    Args:
        method: the method.
        path: the address.
        data: the body.
        keys: header fields under their names in HTTP, such as the ``Authorization`` field with a key.
        protocol: the fields that name the protocol.
        source: the ``wsgi.input`` of a body that is cut; ``content_length`` is then what the client declares.
        content_length: see ``source``.
        fields: the other header fields.
    """
    fields = {**protocol, **fields}
    usual = "application/partial-upload" if protocol is DRAFT else "application/offset+octet-stream"
    media_type = fields.pop("content_type", usual)
    environ: dict[str, Any] = {f"HTTP_{name.upper()}": value for name, value in fields.items()}
    environ["CONTENT_TYPE"] = media_type
    if source is not None:
        environ |= {"wsgi.input": source, "CONTENT_LENGTH": "" if content_length is None else str(content_length)}
    return WholeClient().generic(method, path, data, headers=keys, **environ)


def begin(length: int, *, upload_concat: str | None = None, **metadata: str) -> str:
    """Begin an upload, and return its address."""
    fields: dict[str, Any] = {"upload_length": str(length)}
    if metadata:
        fields["upload_metadata"] = encoded(**metadata)
    if upload_concat:
        fields["upload_concat"] = upload_concat
    response = tus("POST", "/uploads/", **fields)
    assert response.status_code == 201, response.content
    return path_of(response)


def path_of(response: Any) -> str:
    """The path in the address of an upload that was begun."""
    return str(urlsplit(response.headers["Location"]).path)


def append(address: str, offset: int, data: bytes, **fields: Any) -> Any:
    """Send bytes of an upload, which must be accepted."""
    response = tus("PATCH", address, data, upload_offset=str(offset), **fields)
    assert response.status_code == 204, response.content
    return response


def offset_of(address: str) -> int:
    """How many bytes of an upload have arrived."""
    return int(tus("HEAD", address).headers["Upload-Offset"])


def status_of(address: str) -> dict[str, Any]:
    """The document about an upload that a person can read."""
    shown: dict[str, Any] = Client().get(address).json()
    return shown


def encoded(**metadata: str) -> str:
    """The value of Upload-Metadata."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())
