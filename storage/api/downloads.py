"""Files on their way out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import connection
from django.http import HttpResponse, HttpResponseNotModified, StreamingHttpResponse
from django.utils.http import content_disposition_header
from rest_framework.exceptions import APIException
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from storage.api import preconditions, ranges
from storage.api.digests import digest_field
from storage.api.endpoint import Endpoint, well_formed
from storage.api.transfers import Slot
from storage.models import File, nobody
from storage.services import catalogue, retrieve

CONTENT_TYPE = "application/octet-stream"


class AnyAccept(BaseContentNegotiation):
    """Bytes are bytes: whatever the client accepts, it gets the file, and JSON for a problem."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0] if parsers else None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class RangeNotSatisfiable(APIException):
    """The file has nothing of the ranges that were asked for."""

    status_code = 416

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes")
        self.headers = {"Content-Range": ranges.content_range(None, size)}


class Download(Endpoint):
    """The bytes of a file; all of them, or those that `Range` asks for."""

    content_negotiation_class: type[BaseContentNegotiation] = AnyAccept
    renderer_classes = (JSONRenderer,)  # one alone: the answer does not vary with Accept

    def get(self, request: Request, file_hash: str) -> HttpResponse | StreamingHttpResponse:
        file = catalogue.find(nobody(), well_formed(file_hash))
        size = file.content.size
        headers = _headers(file)
        if preconditions.is_known(request.headers, headers["ETag"]):
            return HttpResponseNotModified(headers={**headers, "Content-Length": str(size)})
        wanted = _wanted(request, headers["ETag"], size)
        slot = Slot()
        try:
            download = retrieve.retrieve(file, wanted)
        except BaseException:
            slot.release()
            raise
        connection.close()  # back to the pool: who waits for a client must not keep others from PostgreSQL
        chunks = download.chunks if request.method == "GET" else iter(())
        if wanted is None:
            body, length, content_type = chunks, size, CONTENT_TYPE
        elif len(wanted) == 1:
            body, length, content_type = chunks, len(wanted[0]), CONTENT_TYPE
            headers["Content-Range"] = ranges.content_range(wanted[0], size)
        else:
            parts = ranges.Multipart(wanted, size, CONTENT_TYPE)
            body, length, content_type = parts.body(chunks), len(parts), parts.content_type
        headers["Content-Length"] = str(length)
        status = 200 if wanted is None else 206
        return StreamingHttpResponse(_Body(body, slot), content_type=content_type, status=status, headers=headers)

    head = get


def _headers(file: File) -> dict[str, str]:
    """What is said of a file whichever part of it is sent, and if none is."""
    file_hash = file.content.file_hash
    return {
        "Accept-Ranges": "bytes",
        # Its bytes never change, but it can be deleted or renamed: a cache has to ask, and a 304 costs next to nothing.
        "Cache-Control": "no-cache",
        "Content-Disposition": content_disposition_header(True, file.name) or "attachment",
        "ETag": f'"{file_hash}"',
        "Repr-Digest": digest_field(bytes.fromhex(file_hash)),
        "X-Content-Type-Options": "nosniff",
    }


def _wanted(request: Request, etag: str, size: int) -> list[range] | None:
    """The ranges to send, or None for the whole file.

    Raises:
        RangeNotSatisfiable: the file has nothing of them.
    """
    field = request.headers.get("Range")
    # For other methods than GET it has no meaning (RFC 9110 §14.2).
    if field is None or request.method != "GET" or not preconditions.range_applies(request.headers, etag):
        return None
    wanted = ranges.requested(field, size)
    if wanted is not None and not wanted:
        raise RangeNotSatisfiable(size)
    return wanted


class _Body:
    """A body's chunks; whoever serves it closes it, and the transfer's place is free again."""

    def __init__(self, chunks: Iterator[bytes], slot: Slot) -> None:
        self._chunks = chunks
        self._slot = slot

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._slot.release()
