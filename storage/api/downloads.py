"""Files on their way out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import connection
from django.http import HttpResponse, StreamingHttpResponse
from django.utils.http import content_disposition_header
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request

from storage.api.endpoint import Endpoint, well_formed
from storage.api.transfers import Slot
from storage.models import nobody
from storage.services import catalogue, retrieve


class AnyAccept(BaseContentNegotiation):
    """Bytes are bytes: whatever the client accepts, it gets the file, and JSON for a problem."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0] if parsers else None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class Download(Endpoint):
    """The bytes of a file."""

    content_negotiation_class: type[BaseContentNegotiation] = AnyAccept

    def get(self, request: Request, file_hash: str) -> HttpResponse | StreamingHttpResponse:
        file = catalogue.find(nobody(), well_formed(file_hash))
        slot = Slot()
        try:
            download = retrieve.retrieve(file)
        except BaseException:
            slot.release()
            raise
        connection.close()  # back to the pool: who waits for a client must not keep others from PostgreSQL
        chunks = download.chunks if request.method == "GET" else iter(())
        response = StreamingHttpResponse(_Body(chunks, slot), content_type="application/octet-stream")
        response.headers["Content-Length"] = str(download.size)
        response.headers["Content-Disposition"] = content_disposition_header(True, file.name) or "attachment"
        response.headers["ETag"] = f'"{file_hash}"'
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    head = get


class _Body:
    """A body's chunks; whoever serves it closes it, and the transfer's place is free again."""

    def __init__(self, chunks: Iterator[bytes], slot: Slot) -> None:
        self._chunks = chunks
        self._slot = slot

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._slot.release()
