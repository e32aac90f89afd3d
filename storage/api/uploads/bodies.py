"""Request bodies, also chunked ones. The size of a body is compared with the declared and the allowed size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import parse_qsl

from django.utils.datastructures import MultiValueDict
from django.utils.http import parse_header_parameters
from multipart import MultipartError, MultipartSegment, PushMultipartParser
from rest_framework import parsers
from rest_framework.exceptions import ParseError
from rest_framework.parsers import DataAndFiles
from rest_framework.request import Empty, Request

from storage.api.http.dispositions import form_names
from storage.api.metrics import requests
from storage.api.names import decoded
from storage.exceptions import BodyStalled, BodyTooLarge, BodyTruncated, InvalidRequest, LengthRequired

READ_SIZE = 256 << 10  # The largest number of bytes that a read returns.
SMALL = 1 << 20  # The largest number of bytes of a body that is read into memory.
PARTS = 1000  # The largest number of parts of a form.
FORM_OVERHEAD = 1 << 20  # Bytes that boundaries, headers and other fields may add to MAX_UPLOAD_SIZE.

BOUNDARY = re.compile(r"[ -~]{0,200}[!-~]")
PLAIN_FORM = re.compile(r"multipart/form-data; boundary=([0-9A-Za-z'()+_,./:=?-]{1,200})")
HEAD_CHARSET = "latin-1"  # Latin-1 keeps every byte of a part's head; ``decoded`` then marks bytes that are not UTF-8.
AS_IT_IS = ("7bit", "8bit", "binary")

Take = Callable[[bytes], object]


class BodyStream:
    """The body of one request. The body may have at most ``SMALL`` bytes until ``allow`` sets another limit.

    ``wsgi.input`` is read directly: Django's own stream gives no bytes of a chunked body, and it takes a body that is
    shorter than declared for a complete body.
    """

    def __init__(self, environ: Mapping[str, Any]) -> None:
        source = environ["wsgi.input"]
        # ``read1`` of our server returns after about one second with the bytes that have come. ``read`` would wait for
        # as many bytes as are asked for, and a slow client would look like a dead client.
        self._read: Callable[[int], bytes] = getattr(source, "read1", source.read)
        self.chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
        self.declared = None if self.chunked else int(environ.get("CONTENT_LENGTH") or 0)
        self.limit = SMALL
        self.received = 0

    def allow(self, limit: int) -> None:
        """Set the largest number of bytes that the body may have.

        Raises:
            BodyTooLarge: the client has declared more bytes.
        """
        self.limit = limit
        if (self.declared or 0) > limit:
            raise BodyTooLarge(f"the body is larger than {limit} bytes")

    def read(self, size: int = READ_SIZE) -> bytes:
        """The next bytes.

        Raises:
            BodyStalled: the client sent nothing for STALL_TIMEOUT.
            BodyTruncated: the client hung up, or the body is malformed or shorter than declared.
            BodyTooLarge: the body has more bytes than are allowed.
        """
        size = min(size, READ_SIZE)  # Gunicorn would gather a larger read in memory.
        if self.declared is not None:
            size = min(size, self.declared - self.received)
        if size <= 0:
            return b""
        try:
            data = self._read(size)
        except TimeoutError:
            raise BodyStalled("the client stopped sending") from None
        except Exception as error:
            # The server raises various exceptions for a reset connection or a malformed chunk.
            raise BodyTruncated("the body ended before its end") from error
        self.received += len(data)
        requests.received(len(data))
        if not data and self.declared is not None:
            raise BodyTruncated(f"the body has {self.received} of the {self.declared} bytes that were declared")
        if self.received > self.limit:
            raise BodyTooLarge(f"the body is larger than {self.limit} bytes")
        return data

    def whole(self) -> bytes:
        """All bytes of a body that has at most ``SMALL`` bytes."""
        self.allow(SMALL)
        return b"".join(iter(self.read, b""))


def require_length(environ: Mapping[str, Any]) -> None:
    """Refuse a request that does not say how long its body is: an empty file would be stored in the body's place.

    Raises:
        LengthRequired: the request has neither Content-Length nor Transfer-Encoding.
        InvalidRequest: the request has neither of these fields and is in HTTP/1.0, whose clients do not know 411 (RFC
            1945 §7.2.2).
    """
    if environ.get("CONTENT_LENGTH") or environ.get("HTTP_TRANSFER_ENCODING"):
        return
    detail = "a body has a Content-Length or a Transfer-Encoding"
    if environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        raise InvalidRequest(detail)
    raise LengthRequired(detail)


class StrictRequest(Request):
    """A DRF request whose body is a ``BodyStream``, whatever its parser."""

    def _load_stream(self) -> None:
        stream = BodyStream(self._request.META)
        self._stream: Any = stream if stream.declared != 0 or self._takes_empty() else None

    def _load_data_and_files(self) -> None:
        """Parse the body. DRF would also copy the result to Django's own request, which is not used here."""
        request: Any = self
        if request._data is Empty:
            request._data, request._files = request._parse()
            request._full_data = request._data

    def _takes_empty(self) -> bool:
        """True if a body without bytes is an empty file. A POST without a media type has no body, as DRF assumes."""
        if self.method != "PUT" and not self.content_type:
            return False
        negotiator: Any = self.negotiator
        return getattr(negotiator.select_parser(self, self.parsers), "takes_empty", False)

    @property
    def body(self) -> bytes:
        """The body that DRF gives to its JSON and form parsers."""
        stream: BodyStream = self.stream
        return stream.whole()


class JSONParser(parsers.JSONParser):
    """DRF's JSON parser, except that JSON that is nested too deeply is malformed and not a crash."""

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except ParseError as error:
            if isinstance(error.__context__, UnicodeDecodeError):
                raise ParseError("JSON parse error - not in UTF-8") from None
            raise
        except RecursionError:
            raise ParseError("JSON parse error - nested too deeply") from None


class FormParser(parsers.BaseParser):
    """Parser for a small form in the encoding of a query. Bytes that are not UTF-8 stay visible, as in ``decoded``."""

    media_type = "application/x-www-form-urlencoded"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> MultiValueDict[str, str]:
        text = decoded(stream.whole())
        try:
            fields = parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=PARTS)
        except ValueError:
            raise ParseError(f"malformed form: more than {PARTS} fields") from None
        return MultiValueDict({name: [value] for name, value in fields})


class FieldsParser(parsers.BaseParser):
    """Parser for the fields of a small ``multipart/form-data``. Files in the form are skipped."""

    media_type = "multipart/form-data"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> DataAndFiles[Any, Any]:
        stream.allow(SMALL)
        fields = read_form(parser_context["request"].META, stream, lambda _field, _name: None)
        return DataAndFiles(MultiValueDict({name: [value] for name, value in fields.items()}), MultiValueDict())


def read_form(
    environ: Mapping[str, Any], body: BodyStream, begin_file: Callable[[str, str], Take | None]
) -> dict[str, str]:
    """Parse a multipart form while it arrives (RFC 7578), to the end of the body.

    Args:
        environ: the WSGI environment of the request.
        body: the form.
        begin_file: called for each file with its field name and file name, as the client wrote them. ``begin_file``
            returns the function that takes the file's bytes, or None if the file is skipped.

    Returns:
        Name → value of the other fields. If several fields have one name, the last field counts. Bytes that are not
        UTF-8 stay visible, as in ``decoded``.

    Raises:
        ParseError: the form is malformed, or has no end.
        BodyTruncated: the body was cut.
        BodyTooLarge: the fields have more than ``SMALL`` bytes.
    """
    form = _Form(begin_file)
    for event in form_events(environ, body):
        form.go_on(event)
    return form.fields


@dataclass(frozen=True)
class PartHead:
    """The head of a part of a form. In both names, bytes that are not UTF-8 stay visible, as in ``decoded``.

    Attributes:
        name: the name of the field.
        file_name: the name of the file; empty if the part has none.
    """

    name: str
    file_name: str


FormEvent = PartHead | bytes | None
"""The head of a part, some bytes of a part, or the end of a part (None)."""


def form_events(environ: Mapping[str, Any], body: BodyStream) -> Iterator[FormEvent]:
    """Parse a multipart form while it arrives (RFC 7578), to the end of the body.

    Args:
        environ: the WSGI environment of the request.
        body: the form.

    Yields:
        The events of each part in order.

    Raises:
        ParseError: the form is malformed, or has no end.
        BodyTruncated: the body was cut.
    """
    try:
        parser = PushMultipartParser(_boundary(environ), max_segment_count=PARTS, header_charset=HEAD_CHARSET)
        for data in iter(body.read, b""):
            for event in parser.parse(data):
                yield _head_of(event) if isinstance(event, MultipartSegment) else event
        if body.received:
            parser.close()
    except MultipartError as error:
        raise ParseError(f"malformed form: {error}") from None


class _Form:
    """The part of a form that has arrived so far."""

    def __init__(self, begin_file: Callable[[str, str], Take | None]) -> None:
        self.fields: dict[str, str] = {}
        self._begin_file = begin_file
        self._held = 0
        self._name = ""
        self._field: list[bytes] | None = None
        self._take: Take | None = None

    def go_on(self, event: FormEvent) -> None:
        if isinstance(event, PartHead):
            self._name = event.name
            if event.file_name:
                self._field, self._take = None, self._begin_file(event.name, event.file_name)
            else:
                self._field, self._take = [], self._hold
        elif event is not None:
            if self._take is not None:
                self._take(event)
        elif self._field is not None:
            self.fields[self._name] = decoded(b"".join(self._field))

    def _hold(self, data: bytes) -> None:
        self._held += len(data)
        if self._held > SMALL:
            raise BodyTooLarge("the fields of the form are too large")
        assert self._field is not None
        self._field.append(data)


def _boundary(environ: Mapping[str, Any]) -> str:
    content_type = environ.get("CONTENT_TYPE", "")
    if plain := PLAIN_FORM.fullmatch(content_type):
        return plain[1]
    try:
        boundary = parse_header_parameters(content_type)[1].get("boundary", "")
    except ValueError:
        boundary = ""
    if not BOUNDARY.fullmatch(boundary):
        raise ParseError("malformed form: no boundary")
    return boundary


def _head_of(part: MultipartSegment) -> PartHead:
    if part.header("Content-Transfer-Encoding", AS_IT_IS[0]).strip().lower() not in AS_IT_IS:
        raise ParseError("malformed form: a part of it is encoded")  # RFC 7578 §4.7 deprecates encoded parts.
    try:
        name, file_name = form_names(decoded(part["Content-Disposition"].encode(HEAD_CHARSET)))
    except ValueError as error:
        raise ParseError(f"malformed form: {error}") from None
    return PartHead((name or "").strip(), file_name or "")
