"""Files on their way out.

A download is answered by ``answer`` whichever way it has come: past Django, as most do, or through it, where it has to
say more than the file (ADR 15).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from rest_framework.exceptions import APIException
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request

from storage.api.endpoint import Endpoint, well_formed
from storage.api.errors import problem_response
from storage.api.http import preconditions, ranges
from storage.api.http.digests import digest_field
from storage.api.http.dispositions import attachment
from storage.api.names import valid_name
from storage.api.parameters import require_known
from storage.api.rendering import JsonRenderer
from storage.api.wsgi.transfers import Slot
from storage.models import OpenFile, nobody
from storage.services import retrieve

CONTENT_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Answer:
    """What a client gets; whoever sends the body closes it.

    Attributes:
        status: of HTTP.
        headers: its fields.
        body: in pieces; None if there is none.
    """

    status: int
    headers: dict[str, str]
    body: _Body | None = None

    @contextmanager
    def handing_over(self) -> Iterator[None]:
        """Close the body if nobody takes it."""
        try:
            yield
        except BaseException:
            if self.body is not None:
                self.body.close()
            raise


def answer(environ: Mapping[str, Any], file_hash: str, name: str = "") -> Answer:
    """Answer a GET or a HEAD, which is told what a GET would be: of the whole file, as HEAD knows no ranges.

    Args:
        environ: of the request, as in WSGI.
        file_hash: what the path has in its place.
        name: what the client is to save the file under; empty for the file's own name.

    Raises:
        Exception: what ``errors`` makes a problem document of.
    """
    try:
        well_formed(file_hash)
        require_known(environ, ())
        if name:
            valid_name(name)
        file = retrieve.open_file(nobody(), file_hash)
        headers = _headers(file, name or file.name)
        if preconditions.check(environ, headers["ETag"], file.created_at):
            return Answer(304, headers)
        headers["Content-Type"] = CONTENT_TYPE
        if environ["REQUEST_METHOD"] == "HEAD":
            retrieve.retrieve(file, [range(1)] if file.size else None)  # what cannot be read is found now as then
            return Answer(200, headers)
        return _send(file, headers, _wanted(environ, headers["ETag"], file))
    finally:
        connection.close()  # back to the pool: who waits for a client must not keep others from PostgreSQL


def _send(file: OpenFile, headers: dict[str, str], wanted: list[range] | None) -> Answer:
    parts = None
    if wanted is not None and len(wanted) == 1:
        headers["Content-Range"] = ranges.content_range(wanted[0], file.size)
        headers["Content-Length"] = str(len(wanted[0]))
    elif wanted is not None:
        parts = ranges.Multipart(wanted, file.size, CONTENT_TYPE)
        headers["Content-Type"] = parts.content_type
        headers["Content-Length"] = str(len(parts))
    slot = Slot()
    try:
        chunks = retrieve.retrieve(file, wanted)
    except BaseException:
        slot.release()
        raise
    body = chunks if parts is None else parts.body(chunks)
    return Answer(200 if wanted is None else 206, headers, _Body(body, slot))


def _headers(file: OpenFile, name: str) -> dict[str, str]:
    """What is said of a file whichever part of it is sent, and if none is."""
    return {
        "Accept-Ranges": "bytes",
        # Its bytes never change, but it can be deleted or renamed: a cache has to ask, and a 304 costs next to nothing.
        "Cache-Control": "no-cache",
        "Content-Disposition": attachment(name, otherwise=file.file_hash),
        "Content-Length": str(file.size),
        "ETag": f'"{file.file_hash}"',
        "Last-Modified": preconditions.http_date(file.created_at),
        "Repr-Digest": digest_field(bytes.fromhex(file.file_hash)),
        "X-Content-Type-Options": "nosniff",
    }


class RangeNotSatisfiable(APIException):
    """The file has nothing of the ranges that were asked for."""

    status_code = 416

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes")
        self.headers = {"Content-Range": ranges.content_range(None, size)}


def _wanted(environ: Mapping[str, Any], etag: str, file: OpenFile) -> list[range] | None:
    """The ranges to send, or None for the whole file.

    Raises:
        RangeNotSatisfiable: the file has nothing of them.
    """
    field = environ.get("HTTP_RANGE")
    if field is None or not preconditions.range_applies(environ, etag, file.created_at):
        return None
    wanted = ranges.requested(field, file.size)
    if wanted is not None and not wanted:
        raise RangeNotSatisfiable(file.size)
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
        connection.close()  # of a bad copy that was reported on the way


# -- through Django ----------------------------------------------------------


class AnyAccept(BaseContentNegotiation):
    """Bytes are bytes: whatever the client accepts, it gets the file, and JSON for a problem."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0] if parsers else None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class DownloadView(Endpoint):
    """The bytes of a file; all of them, or those that `Range` asks for."""

    content_negotiation_class: type[BaseContentNegotiation] = AnyAccept
    renderer_classes = (JsonRenderer,)  # one alone: the answer does not vary with Accept

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """GET and HEAD do without DRF: they have no body to parse, and nothing to negotiate."""
        if request.method not in ("GET", "HEAD"):
            return super().dispatch(request, *args, **kwargs)
        try:
            return self.get(request, **kwargs)
        except Exception as error:  # noqa: BLE001  every error is a problem document, or a defect that is logged
            return problem_response(error, {"request": request})

    def get(self, request: HttpRequest, file_hash: str, file_name: str = "") -> HttpResponse | StreamingHttpResponse:
        found = answer(request.META, file_hash, file_name)
        response: HttpResponse | StreamingHttpResponse
        with found.handing_over():
            if found.body is None:
                response = HttpResponse(status=found.status, headers=found.headers)
            else:
                response = StreamingHttpResponse(found.body, status=found.status, headers=found.headers)
        if "Content-Type" not in found.headers:
            del response["Content-Type"]
        return response
