"""Request bodies: counted against what was declared and what is allowed, chunked ones included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

from django.core.files.uploadhandler import FileUploadHandler
from django.http.multipartparser import MultiPartParser as DjangoMultiPartParser
from django.http.multipartparser import MultiPartParserError
from rest_framework import parsers
from rest_framework.exceptions import ParseError
from rest_framework.parsers import DataAndFiles
from rest_framework.request import Request

from storage.exceptions import BodyStalled, BodyTooLarge, BodyTruncated

READ_SIZE = 256 << 10  # a read returns when it has so much: what a slow client sends in the time between heartbeats
SMALL = 1 << 20  # bytes of a body that is read into memory
TAIL = 1024  # bytes at the end of a form in which its last boundary must be


class BodyStream:
    """The body of one request, at most ``SMALL`` bytes of it until ``allow`` says otherwise.

    ``wsgi.input`` is read directly: Django's own stream gives no bytes of a chunked body, and takes a body that
    is shorter than declared for a whole one.
    """

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._input = environ["wsgi.input"]
        self.chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
        self.declared = None if self.chunked else int(environ.get("CONTENT_LENGTH") or 0)
        self.limit = SMALL
        self.received = 0
        self.tail = b""

    def allow(self, limit: int) -> None:
        """Set how many bytes may come.

        Raises:
            BodyTooLarge: more have been announced.
        """
        self.limit = limit
        if (self.declared or 0) > limit:
            raise BodyTooLarge(f"the body is larger than {limit} bytes")

    def read(self, size: int = READ_SIZE) -> bytes:
        """The next bytes.

        Raises:
            BodyStalled: the client sent nothing for STALL_TIMEOUT.
            BodyTruncated: the client hung up, or the body is malformed or shorter than declared.
            BodyTooLarge: more bytes came than are allowed.
        """
        size = min(size, READ_SIZE)  # asked for more, gunicorn would gather it in memory
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
        if not data and self.declared is not None:
            raise BodyTruncated(f"the body has {self.received} of the {self.declared} bytes that were declared")
        if self.received > self.limit:
            raise BodyTooLarge(f"the body is larger than {self.limit} bytes")
        return data

    def whole(self) -> bytes:
        """All of a small body."""
        self.allow(SMALL)
        return b"".join(iter(self.read, b""))

    def drain(self) -> None:
        """Read to the end: only there it shows whether the body was as long as declared."""
        while self.read():
            pass


class StrictRequest(Request):
    """A DRF request whose body is a ``BodyStream``, whatever its parser."""

    def _load_stream(self) -> None:
        stream = BodyStream(self._request.META)
        self._stream: Any = stream if stream.declared != 0 or self._takes_empty() else None

    def _takes_empty(self) -> bool:
        """Whether no bytes are an empty file; to DRF they are no body at all, and so they are in a bare POST."""
        if self.method != "PUT" and not self.content_type:
            return False
        negotiator: Any = self.negotiator
        return getattr(negotiator.select_parser(self, self.parsers), "takes_empty", False)

    @property
    def body(self) -> bytes:
        """What DRF gives its JSON and form parsers."""
        stream: BodyStream = self.stream
        return stream.whole()


class JSONParser(parsers.JSONParser):
    """DRF's, for which JSON that is nested too deeply is malformed, not a crash."""

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("JSON parse error - nested too deeply") from None


class FieldsParser(parsers.BaseParser):
    """The fields of a small ``multipart/form-data``; files in it are skipped."""

    media_type = "multipart/form-data"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> DataAndFiles[Any, Any]:
        stream.allow(SMALL)
        return read_form(parser_context["request"].META, stream, [])


def read_form(
    environ: Mapping[str, Any], body: BodyStream, handlers: Sequence[FileUploadHandler]
) -> DataAndFiles[Any, Any]:
    """Parse a multipart form, its files through ``handlers``.

    Raises:
        ParseError: it is malformed.
        BodyTruncated: it was cut.
    """
    source: Any = body
    declared = body.limit if body.declared is None else body.declared
    try:
        parser: Any = DjangoMultiPartParser(
            {**environ, "CONTENT_LENGTH": str(declared)}, source, list(handlers), "utf-8"
        )
        data, files = parser.parse()
    except MultiPartParserError as error:
        raise ParseError(f"malformed form: {error}") from None
    body.drain()
    # Django takes a form that is cut anywhere after the last file's header for a whole one.
    if body.received and b"--" + parser._boundary + b"--" not in body.tail:
        raise BodyTruncated("the form has no end")
    return DataAndFiles(data, files)
