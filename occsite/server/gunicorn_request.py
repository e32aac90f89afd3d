"""gunicorn's requests, with stricter rules for the framing of a body, for the Host field, and for proxies."""

from __future__ import annotations

import time
from io import BytesIO
from typing import Any

from gunicorn.http import body, message
from gunicorn.http.errors import InvalidHeader, UnsupportedTransferCoding
from gunicorn.http.parser import RequestParser

from storage.api.wsgi.forwarding import is_trusted
from storage.conf import configuration
from storage.s3.signatures.canonical import escaped

LARGE = 1 << 20  # bytes: a connection ends if this much of a body is unread, or an unknown number of bytes
SOON = 1.0  # A read returns the bytes that have come within this many seconds, and does not wait for more.
WITH_BODY = ("PATCH", "POST", "PUT")  # With these methods, a client may send a body that no field announces.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Refused(InvalidHeader):  # type: ignore[misc]
    """A bad or missing field in the head of a request, which is answered with 400."""

    def __str__(self) -> str:
        return str(self.hdr)


class Request(message.Request):  # type: ignore[misc]
    """gunicorn's request, with the rules of RFC 9112 that gunicorn is lenient about."""

    body: Any
    _expected_100_continue: bool

    def _peer_is_trusted_proxy(self) -> bool:
        return is_trusted(self.peer_addr[0], configuration().trusted_proxies)

    def _apply_header_policy(self, name: str, value: str, *state: Any, **options: Any) -> Any:
        """Keep the underscores in the names of S3's metadata by escapes: an environ has underscores for hyphens.

        gunicorn drops all other fields whose names have an underscore.
        """
        return super()._apply_header_policy(escaped(name), value, *state, **options)

    def _parse_python(self, unreader: Any, buf: bytearray) -> Any:
        """Skip empty lines before the request line: some clients send them after a body (RFC 9112 §2.2)."""
        while b"\r\n".startswith(buf[:2]):
            if len(buf) < 2:
                self.read_into(unreader, buf)
            else:
                del buf[:2]
        return super()._parse_python(unreader, buf)

    def set_body_reader(self) -> None:
        """Check the head and prepare the body; gunicorn calls this when it has parsed the head."""
        fields = dict(self.headers)
        self._require_host(fields)
        self._require_known_codings()
        self._take_script_name()
        super().set_body_reader()
        reader = self.body.reader
        if isinstance(reader, body.ChunkedReader):
            reader = ChunkedReader(self, self.unreader)
        else:
            reader = SizedReader(self.unreader, reader.length)
        self.body = RequestBody(reader, is_expected=self._expected_100_continue)
        self._expected_100_continue = False  # gunicorn would ask for the body before the application sees the head.
        # The connection's next bytes may be a body that was not announced, and must not be taken for a request.
        is_announced = "CONTENT-LENGTH" in fields or "TRANSFER-ENCODING" in fields
        if self.method in WITH_BODY and not is_announced:
            self.force_close()

    def should_close(self) -> bool:
        """Tell whether the connection ends with this request, as its body was not asked for, or much of it is unread.

        gunicorn calls this method when it sends the head of the answer, and again after the answer. The result of the
        second call must equal that of the first call, which the client knows from the head.
        """
        if self.body.is_expected or self.body.unread >= LARGE:
            self.force_close()
        return bool(super().should_close())

    def _require_host(self, fields: dict[str, str]) -> None:
        """Refuse a request of HTTP/1.1 without a Host field (RFC 9112 §3.2); gunicorn itself refuses two fields."""
        if self.version >= (1, 1) and "HOST" not in fields:
            raise Refused("a request of HTTP/1.1 has a Host field")

    def _require_known_codings(self) -> None:
        """Refuse transfer codings other than ``chunked`` (RFC 9112 §6.1, §6.3): the body would be stored encoded."""
        lines = [value for name, value in self.headers if name == "TRANSFER-ENCODING"]
        codings = [coding for coding in (part.strip(" \t").lower() for part in ",".join(lines).split(",")) if coding]
        if not lines or codings == ["chunked"]:
            return
        if not codings or codings[-1] != "chunked" or "chunked" in codings[:-1] or self.version < (1, 1):
            raise Refused("the last transfer coding, and no other, is chunked")
        raise UnsupportedTransferCoding(", ".join(codings[:-1]))

    def _take_script_name(self) -> None:
        """Accept SCRIPT_NAME if the path begins with it; only trusted proxies can send this field."""
        for position, (name, value) in enumerate(self.headers):
            if name == "SCRIPT_NAME":
                prefix = value.rstrip("/")
                if prefix and not (prefix.startswith("/") and f"{self.path}/".startswith(f"{prefix}/")):
                    raise Refused("the path does not begin with SCRIPT_NAME")
                self.headers[position] = (name, prefix)


class Parser(RequestParser):  # type: ignore[misc]
    """gunicorn's parser, which makes requests of our class."""

    mesg_class = Request


class RequestBody(body.Body):  # type: ignore[misc]
    """A body that is asked for (``100 Continue``) only when the application first reads it (RFC 9110 §10.1.1).

    Attributes:
        is_expected: True if the client waits for ``100 Continue``.
    """

    def __init__(self, reader: Any, *, is_expected: bool) -> None:
        super().__init__(reader)
        self.is_expected = is_expected

    @property
    def unread(self) -> int:
        """The number of bytes of the body that are not read yet; ``LARGE`` if some are, and their number is unknown."""
        if isinstance(self.reader, ChunkedReader):
            return LARGE if self.reader.parser else 0
        return int(self.reader.length)

    def read1(self, size: int) -> bytes:
        """The next bytes, at most ``size``. The method waits for SOON, or longer until the first byte has come."""
        if held := self.buf.tell():  # The buffer holds the rest of a line that was read.
            return bytes(self.read(min(size, held)))
        return self._read_reader(size)

    def _read_reader(self, size: int) -> bytes:
        if self.is_expected:
            self.is_expected = False
            self.reader.unreader.sock.sendall(CONTINUE)
        return bytes(super()._read_reader(size))


class SizedReader(body.LengthReader):  # type: ignore[misc]
    """A body of known length. A read receives no more bytes than its caller asks for.

    gunicorn's reader receives ahead, and copies the remaining bytes at each read, so that each byte is copied more than
    once.
    """

    def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``. After the first byte has come, the method waits for SOON at most."""
        left = min(size, self.length)
        held: bytes = self.unreader.take_buffered()
        if len(held) > left:
            self.unreader.unread(held[left:])
            held = held[:left]
        pieces = [held] if held else []
        left -= len(held)
        self.length -= len(held)
        until: float | None = None
        while left:
            piece = self._receive(left, until) if pieces else self.unreader.sock.recv(left)
            if not piece:
                break
            until = until or time.monotonic() + SOON
            pieces.append(piece)
            left -= len(piece)
            self.length -= len(piece)
        return b"".join(pieces)

    def _receive(self, size: int, until: float | None) -> bytes | None:
        seconds = SOON if until is None else until - time.monotonic()
        received: bytes | None = self.unreader.sock.recv_within(size, seconds) if seconds > 0 else None
        return received


class ChunkedReader(body.ChunkedReader):  # type: ignore[misc]
    """A chunked body (RFC 9112 §7.1)."""

    parser: Any
    buf: BytesIO

    def __init__(self, request: Request, unreader: Any) -> None:
        super().__init__(request, unreader)
        self.unreader = unreader

    def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``. The method waits for SOON, or longer until the first byte has come."""
        until = time.monotonic() + SOON
        while self.parser and self.buf.tell() < size and not (self.buf.tell() and time.monotonic() > until):
            piece = next(self.parser, None)
            if piece is None:
                self.parser = None
            else:
                self.buf.write(piece)
        data = self.buf.getvalue()
        self.buf = BytesIO()
        self.buf.write(data[size:])
        return bytes(data[:size])
