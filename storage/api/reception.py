"""The body of an upload, from the socket to staging, as a DRF parser."""

from __future__ import annotations

from typing import Any

from django.core.files.base import ContentFile
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.db import connection
from django.http.multipartparser import MultiPartParser as DjangoMultiPartParser
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser, DataAndFiles
from rest_framework.request import Request

from storage.api import digests, serializers
from storage.api.bodies import READ_SIZE, BodyStream, read_form
from storage.conf import configuration
from storage.exceptions import InvalidRequest
from storage.models import nobody
from storage.services.intake import Reception

FIELD = "file"
FORM_OVERHEAD = 1 << 20  # what boundaries, headers and other fields may add to MAX_UPLOAD_SIZE


class StagedFile(UploadedFile[bytes]):
    """A file field whose bytes are in staging already."""

    def __init__(self, reception: Reception, name: str) -> None:
        super().__init__(ContentFile(b""), name=name, size=reception.size)
        self.reception = reception

    @staticmethod
    def sanitised(name: str) -> str:
        """A file name as a form upload would keep it; empty if nothing is left."""
        clean = DjangoMultiPartParser.sanitize_file_name(None, name)  # type: ignore[arg-type]
        return str(UploadedFile(ContentFile(b""), name=clean).name) if clean else ""


class StagingHandler(FileUploadHandler):
    """Sends the one file field into staging; other files are skipped."""

    chunk_size = READ_SIZE

    def __init__(self, stream: BodyStream) -> None:
        super().__init__()
        self._stream = stream
        self.reception: Reception | None = None

    def new_file(self, field_name: str, *args: Any, **kwargs: Any) -> None:
        super().new_file(field_name, *args, **kwargs)
        if field_name != FIELD:
            raise SkipFile
        if self.reception is not None:
            raise InvalidRequest("an upload has one file", {FIELD: ["Send one file at a time."]})
        self.reception = Reception(nobody(), declared_size=self._stream.declared or 0)
        connection.close()  # back to the pool: who waits for a client must not keep others from PostgreSQL

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        if self.reception is not None:
            self.reception.write(raw_data)
        return None

    def file_complete(self, file_size: int) -> StagedFile | None:
        return StagedFile(self.reception, self.file_name or "") if self.reception is not None else None


class StagingFormParser(BaseParser):
    """``multipart/form-data`` with the file staged while it arrives.

    The parser leaves the reception on the view, which ends it whatever happens afterwards.
    """

    media_type = "multipart/form-data"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> DataAndFiles[Any, Any]:
        stream.allow(configuration().max_upload_size + FORM_OVERHEAD)
        handler = StagingHandler(stream)
        try:
            return read_form(parser_context["request"].META, stream, [handler])
        finally:
            parser_context["view"].reception = handler.reception


class RawParser(BaseParser):
    """A body that is the file itself; name and replication factor are in the address, the digest in a header.

    All three are looked at before the body is read. The reception is left on the view.
    """

    media_type = "*/*"
    takes_empty = True

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> DataAndFiles[Any, Any]:
        request, view = parser_context["request"], parser_context["view"]
        _require_whole(request)
        claims = digests.claimed(request.headers)
        name = _name(view.kwargs.get("file_name") or request.query_params.get("file_name", ""))
        form = serializers.RawUploadSerializer(data=request.query_params)
        form.is_valid(raise_exception=True)
        stream.allow(configuration().max_upload_size)
        factor = form.validated_data.get("replication_factor")
        view.reception = reception = Reception(nobody(), declared_size=stream.declared or 0, replication_factor=factor)
        connection.close()  # back to the pool: who waits for a client must not keep others from PostgreSQL
        for data in iter(stream.read, b""):
            reception.write(data)
        digests.require(claims, reception.sha256)
        staged = StagedFile(reception, name or reception.sha256.hex())
        return DataAndFiles(form.validated_data, {FIELD: staged})


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


def _name(text: str) -> str:
    name = StagedFile.sanitised(text)
    if text and not name:
        raise InvalidRequest("not a file name", {"file_name": ["Not a file name."]})
    return name


class FormOrFile(DefaultContentNegotiation):
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
