"""The body of an upload, from the socket to staging, as a DRF parser."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.utils.datastructures import MultiValueDict
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser, DataAndFiles
from rest_framework.request import Request

from storage.api import names, serializers
from storage.api.endpoint import Negotiation
from storage.api.http import digests
from storage.api.uploads.bodies import Take, read_form
from storage.conf import configuration
from storage.exceptions import InvalidRequest
from storage.models import nobody
from storage.services.intake import Reception

FIELD = "file"
FORM_OVERHEAD = 1 << 20  # what boundaries, headers and other fields may add to MAX_UPLOAD_SIZE


@dataclass(frozen=True)
class StagedFile:
    """A file field whose bytes have been received already, and the name that it is stored under.

    Whoever gets it from the parser ends the reception.
    """

    reception: Reception
    name: str


class StagingFormParser(BaseParser):
    """``multipart/form-data``: its one file field is staged while it arrives, other files are skipped.

    If the form turns out to be bad, the reception that was begun is ended here.
    """

    media_type = "multipart/form-data"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> DataAndFiles[Any, Any]:
        files: dict[str, StagedFile] = {}
        opened = ExitStack()

        def begin_file(field: str, name: str) -> Take | None:
            if field != FIELD:
                return None
            if files:
                raise InvalidRequest("an upload has one file", {FIELD: ["Send one file at a time."]})
            names.valid_name(name, FIELD)
            reception = opened.enter_context(Reception(nobody(), declared_size=stream.declared or 0))
            connection.close()  # back to the pool: who waits for a client must not keep others from PostgreSQL
            files[FIELD] = StagedFile(reception, name)
            return reception.write

        stream.allow(configuration().max_upload_size + FORM_OVERHEAD)
        with opened:
            fields = read_form(parser_context["request"].META, stream, begin_file)
            opened.pop_all()
        return DataAndFiles({**fields, **files}, MultiValueDict())


class RawParser(BaseParser):
    """A body that is the file itself; name and replication factor are in the address, the digest in a header.

    All three are looked at before the body is read. If the body turns out to be bad, the reception is ended here.
    """

    media_type = "*/*"
    takes_empty = True

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> DataAndFiles[Any, Any]:
        request, view = parser_context["request"], parser_context["view"]
        _require_whole(request)
        claims = digests.claimed(request.headers)
        name = view.kwargs.get("file_name") or names.in_query(request.META)
        if name:
            names.valid_name(name)
        factor = serializers.wanted_factor(request.query_params)
        stream.allow(configuration().max_upload_size)
        reception = Reception(nobody(), declared_size=stream.declared or 0, replication_factor=factor)
        connection.close()  # back to the pool: who waits for a client must not keep others from PostgreSQL
        with ExitStack() as opened:
            opened.enter_context(reception)
            for data in iter(stream.read, b""):
                reception.write(data)
            digests.require(claims, reception.sha256)
            opened.pop_all()
        staged = StagedFile(reception, name or reception.sha256.hex())
        return DataAndFiles({FIELD: staged, "replication_factor": factor}, MultiValueDict())


def _require_whole(request: Request) -> None:
    """
    Raises:
        UnsupportedMediaType: the body is encoded, and would come back as if it were not.
        InvalidRequest: it is a part of a file, as of an upload that is resumed (RFC 9110 §14.5).
    """
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise UnsupportedMediaType(coding, detail="send the file without a Content-Encoding")
    if "Content-Range" in request.headers:
        raise InvalidRequest("send the whole file", {"Content-Range": ["An upload cannot be resumed."]})


class FormOrFile(Negotiation):
    """A body is a form if its type says so, and otherwise the file itself.

    A form that cannot hold a file is refused where one is expected, with POST; ``curl --data-binary`` and ``-X PUT``
    call any file such a form.
    """

    def select_parser(self, request: Request, parsers: Any) -> Any:
        media_type = request.content_type.partition(";")[0].strip().lower()
        if media_type == "application/x-www-form-urlencoded" and request.method == "POST":
            return None
        wanted = StagingFormParser if media_type == StagingFormParser.media_type else RawParser
        return next((parser for parser in parsers if isinstance(parser, wanted)), None)
