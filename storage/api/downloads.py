"""Files on their way out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, StreamingHttpResponse
from django.utils.http import content_disposition_header
from rest_framework.exceptions import APIException
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request

from storage.api import preconditions, ranges
from storage.api.digests import digest_field
from storage.api.endpoint import Endpoint, well_formed
from storage.api.errors import problem_response
from storage.api.rendering import JsonRenderer
from storage.api.transfers import Slot
from storage.models import OpenFile, nobody
from storage.services import retrieve

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
    renderer_classes = (JsonRenderer,)  # one alone: the answer does not vary with Accept

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """GET and HEAD do without DRF: they have no body to parse, and nothing to negotiate."""
        answer = {"GET": self.get, "HEAD": self.head}.get(request.method or "")
        if answer is None:
            return super().dispatch(request, *args, **kwargs)
        try:
            return answer(request, **kwargs)
        except Exception as error:  # noqa: BLE001  every error is a problem document, or a defect that is logged
            return problem_response(error, {"request": request})

    def get(self, request: HttpRequest, file_hash: str) -> HttpResponse | StreamingHttpResponse:
        file = retrieve.find(nobody(), well_formed(file_hash))
        headers = _headers(file)
        if preconditions.is_known(request.META, headers["ETag"]):
            return HttpResponseNotModified(headers={**headers, "Content-Length": str(file.size)})
        wanted = _wanted(request, headers["ETag"], file.size)
        slot = Slot()
        try:
            chunks = retrieve.retrieve(file, wanted)
        except BaseException:
            slot.release()
            raise
        connection.close()  # back to the pool: who waits for a client must not keep others from PostgreSQL
        if wanted is None:
            body, length, content_type = chunks, file.size, CONTENT_TYPE
        elif len(wanted) == 1:
            body, length, content_type = chunks, len(wanted[0]), CONTENT_TYPE
            headers["Content-Range"] = ranges.content_range(wanted[0], file.size)
        else:
            parts = ranges.Multipart(wanted, file.size, CONTENT_TYPE)
            body, length, content_type = parts.body(chunks), len(parts), parts.content_type
        headers["Content-Length"] = str(length)
        status = 200 if wanted is None else 206
        return StreamingHttpResponse(_Body(body, slot), content_type=content_type, status=status, headers=headers)

    def head(self, request: HttpRequest, file_hash: str) -> HttpResponse:
        """What a GET would answer, without ranges; a chunk that cannot be read is found now as then."""
        file = retrieve.find(nobody(), well_formed(file_hash))
        headers = {**_headers(file), "Content-Length": str(file.size)}
        if preconditions.is_known(request.META, headers["ETag"]):
            return HttpResponseNotModified(headers=headers)
        retrieve.retrieve(file, [range(1)] if file.size else None)
        return HttpResponse(content_type=CONTENT_TYPE, headers=headers)


def _headers(file: OpenFile) -> dict[str, str]:
    """What is said of a file whichever part of it is sent, and if none is."""
    return {
        "Accept-Ranges": "bytes",
        # Its bytes never change, but it can be deleted or renamed: a cache has to ask, and a 304 costs next to nothing.
        "Cache-Control": "no-cache",
        "Content-Disposition": content_disposition_header(True, file.name) or "attachment",
        "ETag": f'"{file.file_hash}"',
        "Repr-Digest": digest_field(bytes.fromhex(file.file_hash)),
        "X-Content-Type-Options": "nosniff",
    }


def _wanted(request: HttpRequest, etag: str, size: int) -> list[range] | None:
    """The ranges to send, or None for the whole file.

    Raises:
        RangeNotSatisfiable: the file has nothing of them.
    """
    field = request.META.get("HTTP_RANGE")
    if field is None or not preconditions.range_applies(request.META, etag):
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
