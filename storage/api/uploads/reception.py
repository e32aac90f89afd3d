"""DRF parsers that read the body of an upload from the socket into staging."""

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
from storage.api.authorization import authorize
from storage.api.endpoint import Negotiation
from storage.api.http import digests
from storage.api.uploads.bodies import FORM_OVERHEAD, Take, read_form
from storage.conf import configuration
from storage.exceptions import InvalidRequest
from storage.services.intake import Reception

FIELD = "file"


@dataclass(frozen=True)
class StagedFile:
    """A file whose bytes have been received already, and the name that the client gave it, if the client gave one.

    The code that gets a staged file from the parser must end the reception.
    """

    reception: Reception
    name: str | None


class StagingFormParser(BaseParser):
    """Parser for ``multipart/form-data``. The one file field is staged while it arrives; other files are skipped.

    A name in the query replaces that of the file field. A factor in the query counts if the form has none. If the form
    turns out to be bad, the parser ends the reception that it has begun.
    """

    media_type = "multipart/form-data"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> DataAndFiles[Any, Any]:
        request = parser_context["request"]
        owner = authorize(request.META).owner
        name_in_query, factor_in_query = _wanted_by_query(request)
        files: dict[str, StagedFile] = {}
        opened = ExitStack()

        def begin_file(field: str, name: str) -> Take | None:
            if field != FIELD:
                return None
            if files:
                raise InvalidRequest("an upload has one file", {FIELD: ["Send one file at a time."]})
            if not name_in_query:
                names.valid_name(name, FIELD)
            kept = name_in_query or name
            reception = Reception(owner, declared_size=stream.declared or 0, name=kept, overhead=FORM_OVERHEAD)
            opened.enter_context(reception)
            # The connection to PostgreSQL goes back to the pool, because this thread may now wait long for its client.
            connection.close()
            files[FIELD] = StagedFile(reception, kept)
            return reception.write

        stream.allow(configuration().max_upload_size + FORM_OVERHEAD)
        with opened:
            fields = read_form(request.META, stream, begin_file)
            opened.pop_all()
        factor = fields.get("replication_factor") or factor_in_query
        return DataAndFiles({**fields, **files, "replication_factor": factor}, MultiValueDict())


class RawParser(BaseParser):
    """Parser for a body that is the file itself. The address has the name and the factor, a header has the digest.

    The parser checks name, factor and digest before it reads the body. If the body turns out to be bad, the parser ends
    the reception.
    """

    media_type = "*/*"
    takes_empty = True

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> DataAndFiles[Any, Any]:
        request, view = parser_context["request"], parser_context["view"]
        _require_whole(request)
        claims = digests.claimed(request.headers)
        name_in_query, factor = _wanted_by_query(request)
        name = view.kwargs.get("file_name") or name_in_query
        if name:
            names.valid_name(name)
        stream.allow(configuration().max_upload_size)
        reception = Reception(
            authorize(request.META).owner,
            declared_size=stream.declared or 0,
            replication_factor=factor,
            name=name or None,
        )
        # The connection to PostgreSQL goes back to the pool, because this thread may now wait long for its client.
        connection.close()
        with ExitStack() as opened:
            opened.enter_context(reception)
            for data in iter(stream.read, b""):
                reception.write(data)
            digests.require(claims, reception.sha256)
            opened.pop_all()
        staged = StagedFile(reception, name or None)
        return DataAndFiles({FIELD: staged, "replication_factor": factor}, MultiValueDict())


def _wanted_by_query(request: Request) -> tuple[str, int | None]:
    """The name and the replication factor that the query asks for: an empty string and None if it asks for none.

    Both are checked even if another part of the request has a name or a factor that counts more.

    Raises:
        InvalidRequest: the value cannot be a name.
        ValidationError: the value is not a possible replication factor.
    """
    if not request.META.get("QUERY_STRING"):
        return "", None
    name = names.in_query(request.META)
    return names.valid_name(name) if name else "", serializers.wanted_factor(request.query_params)


def _require_whole(request: Request) -> None:
    """Refuse a body that is encoded, or is only a part of a file.

    Raises:
        UnsupportedMediaType: the body has a content coding. A download would not say that the bytes are coded.
        InvalidRequest: the body is a part of a file, as when an upload is resumed (RFC 9110 §14.5).
    """
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise UnsupportedMediaType(coding, detail="send the file without a Content-Encoding")
    if "Content-Range" in request.headers:
        raise InvalidRequest("send the whole file", {"Content-Range": ["An upload cannot be resumed."]})


class FormOrFile(Negotiation):
    """Negotiation that takes a body for a form if its media type says so, and otherwise for the file itself.

    A form of the type ``application/x-www-form-urlencoded`` cannot hold a file. A POST of this type is refused, because
    POST expects a form with a file. With PUT this type is ignored, because ``curl --data-binary -X PUT`` sends any file
    with this type.
    """

    def select_parser(self, request: Request, parsers: Any) -> Any:
        media_type = request.content_type.partition(";")[0].strip().lower()
        if media_type == "application/x-www-form-urlencoded" and request.method == "POST":
            return None
        wanted = StagingFormParser if media_type == StagingFormParser.media_type else RawParser
        return next((parser for parser in parsers if isinstance(parser, wanted)), None)
