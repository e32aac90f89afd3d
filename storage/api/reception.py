"""The body of an upload, from the socket to staging, as a DRF parser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.http.multipartparser import MultiPartParser as DjangoMultiPartParser
from django.http.multipartparser import MultiPartParserError
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, DataAndFiles

from storage.conf import configuration
from storage.exceptions import BodyStalled, BodyTooLarge, BodyTruncated
from storage.models import nobody
from storage.services.intake import Reception

FIELD = "file"
READ_SIZE = 1 << 20
TAIL = 1024  # bytes at the end of a form in which its last boundary must be
FORM_OVERHEAD = 1 << 20  # what boundaries, headers and other fields may add to MAX_UPLOAD_SIZE


class StagedFile(UploadedFile):
    """A file field whose bytes are in staging already."""

    def __init__(self, reception: Reception, name: str) -> None:
        super().__init__(ContentFile(b""), name=name, size=reception.size)
        self.reception = reception

    @staticmethod
    def sanitised(name: str) -> str:
        """A file name as a form upload would keep it; empty if nothing is left."""
        clean = DjangoMultiPartParser.sanitize_file_name(None, name)  # type: ignore[arg-type]
        return str(UploadedFile(ContentFile(b""), name=clean).name) if clean else ""


class BodyStream:
    """The request's body, counted against what was declared and what is allowed.

    ``wsgi.input`` is read directly: Django's own stream gives no bytes of a chunked body.
    """

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._input = environ["wsgi.input"]
        self._limit = configuration().max_upload_size + FORM_OVERHEAD
        self.chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
        length = environ.get("CONTENT_LENGTH") or "0"
        self.declared = None if self.chunked else int(length)
        self.received = 0
        self.tail = b""

    def read(self, size: int = READ_SIZE) -> bytes:
        """The next bytes.

        Raises:
            BodyStalled: the client sent nothing for STALL_TIMEOUT.
            BodyTruncated: the client hung up, or the body is malformed or shorter than declared.
            BodyTooLarge: it is longer than any upload may be.
        """
        if self.declared is not None:
            size = min(size, self.declared - self.received)
        if size <= 0:
            return b""
        try:
            data: bytes = self._input.read(size)
        except TimeoutError:
            raise BodyStalled("the client stopped sending") from None
        except Exception as error:
            # Whatever the server raises for a reset connection or a malformed chunk.
            raise BodyTruncated("the body ended before its end") from error
        self.received += len(data)
        self.tail = (self.tail + data)[-TAIL:] if len(data) < TAIL else data[-TAIL:]
        if self.declared is not None and len(data) < size and not data:
            raise BodyTruncated(f"the body has {self.received} of the {self.declared} bytes that were declared")
        if self.received > self._limit:
            raise BodyTooLarge("the body is larger than any upload may be")
        return data

    def drain(self) -> None:
        """Read to the end: only there it shows whether the body was as long as declared."""
        while self.read():
            pass


class StagingHandler(FileUploadHandler):
    """Sends the one file field into staging; other files are skipped."""

    chunk_size = READ_SIZE

    def __init__(self, stream: BodyStream) -> None:
        super().__init__()
        self._stream = stream
        self.reception: Reception | None = None
        self._staged: StagedFile | None = None
        self._active = False

    def new_file(self, field_name: str, *args: Any, **kwargs: Any) -> None:
        super().new_file(field_name, *args, **kwargs)
        self._active = field_name == FIELD and self.reception is None
        if not self._active:
            raise SkipFile
        self.reception = Reception(nobody(), declared_size=self._stream.declared or 0)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        if self.reception is not None and self._active:
            self.reception.write(raw_data)
        return None

    def file_complete(self, file_size: int) -> UploadedFile | None:
        if self.reception is None or not self._active:
            return None
        self._active = False
        return StagedFile(self.reception, self.file_name or "")


class StagingFormParser(BaseParser):
    """``multipart/form-data`` with the file staged while it arrives.

    The parser leaves the reception on the view, which ends it whatever happens afterwards.
    """

    media_type = "multipart/form-data"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> DataAndFiles[Any, Any]:
        context = parser_context or {}
        request, view = context["request"], context["view"]
        body = BodyStream(request.META)
        limit = configuration().max_upload_size
        if (body.declared or 0) > limit + FORM_OVERHEAD:
            raise BodyTooLarge(f"the body is larger than {limit} bytes")
        handler = StagingHandler(body)
        meta = {**request.META, "CONTENT_LENGTH": str(body.declared if body.declared is not None else limit)}
        try:
            parser = DjangoMultiPartParser(meta, body, [handler], "utf-8")
            data, files = parser.parse()
            body.drain()
            # Django takes a form that is cut anywhere after the last file's header for a whole one.
            if body.received and b"--" + parser._boundary + b"--" not in body.tail:
                raise BodyTruncated("the form has no end")
        except MultiPartParserError as error:
            raise ParseError(f"malformed form: {error}") from None
        finally:
            view.reception = handler.reception
        return DataAndFiles(data, files)
