"""A client of the API that records everything it attempts. The client relies on the documented API and on nothing else.

An attempt is in the journal before its first byte is sent. The server's answer decides the outcome of the attempt. The
oracle finds out what the server really did.
"""

from __future__ import annotations

import hashlib
import json
import math
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import quote, urlsplit

BOUNDARY = "journal-8f2c1d"
READ_SIZE = 256 << 10
FRAMES = 20
RESET = struct.pack("ii", 1, 0)  # A value of SO_LINGER: a close drops all unsent bytes and resets the connection.
TERMINAL = {"succeeded", "failed", "cancelled"}  # The states of a job that has ended.


class Action(StrEnum):
    UPLOAD = "upload"
    DOWNLOAD = "download"
    DELETE = "delete"


class Outcome(StrEnum):
    ACKNOWLEDGED = "acknowledged"  # The server said that the request was done or, with a 202, that it will be done.
    REFUSED = "refused"  # The server said that the request was not done.
    # There was no whole answer, or the answer promises nothing: the request may have been done, or may still be done.
    UNKNOWN = "unknown"
    WRONG = "wrong"  # The answer is a defect, whatever fault there was.


@dataclass(frozen=True)
class Vanish:
    """How a client vanishes during an upload.

    Attributes:
        at: the share of its body that the client has sent when it vanishes, from 0 to 1.
        reset: True if the client resets the connection, as a crash does; False if the client closes it.
    """

    at: float
    reset: bool = False


@dataclass(eq=False, kw_only=True)
class Exchange:
    """What came of one request. Times are of the monotonic clock."""

    begun: float = field(default_factory=time.monotonic)
    ended: float = math.inf
    outcome: Outcome = Outcome.UNKNOWN
    status: int | None = None
    detail: str = "under way"

    @property
    def took_effect_by(self) -> float:
        """The moment after which the request changes nothing any more: infinity if its outcome is unknown."""
        return math.inf if self.outcome is Outcome.UNKNOWN else self.ended

    @property
    def said(self) -> str:
        """The outcome in words."""
        return f"{self.outcome} {self.status or ''} {self.detail}".strip()

    def end(self, outcome: Outcome, detail: str = "") -> None:
        self.outcome, self.detail, self.ended = outcome, detail, time.monotonic()


@dataclass(eq=False)
class Attempt(Exchange):
    """One request about a file, and its outcome."""

    action: Action
    file_hash: str
    size: int = 0
    name: str = ""
    factor: int | None = None
    job: str | None = None

    def __str__(self) -> str:
        return f"{self.action} of {self.name or '?'} ({self.file_hash[:12]}, {self.size} bytes): {self.said}"


class Journal:
    """The attempts of all threads of a test, in the order in which they began."""

    def __init__(self, base_url: str, timeout: float = 120.0) -> None:
        """
        Args:
            base_url: the address of the service.
            timeout: seconds of silence after which the client gives up.
        """
        self.address = urlsplit(base_url).netloc
        self.timeout = timeout
        self.attempts: list[Attempt] = []
        self._known: dict[str, tuple[str, int]] = {}

    # -- recorded ----------------------------------------------------------

    def upload(
        self,
        data: bytes,
        name: str,
        *,
        factor: int | None = None,
        respond_async: bool = False,
        midway: Callable[[], object] | None = None,
        chunked: bool = False,
        raw: bool = False,
        vanish: Vanish | None = None,
    ) -> Attempt:
        """Upload a file.

        Args:
            data: the bytes of the file.
            name: the name of the file, in the journal and on the server.
            factor: the replication factor to ask for; None to ask for none.
            respond_async: True to ask for a 202.
            midway: a function that is called when half of the body has been sent.
            chunked: True to send the body with chunked transfer coding, without a Content-Length.
            raw: True to send the file as the body of a PUT; by default the file is a field of a form.
            vanish: how the client vanishes before it has sent everything; by default the client stays.
        """
        attempt = Attempt(Action.UPLOAD, hashlib.sha256(data).hexdigest(), len(data), name, factor)
        self._known[attempt.file_hash] = (name, len(data))
        body = data if raw else _form(data, name, factor)
        query = f"?replication_factor={factor}" if factor else ""

        def send(connection: HTTPConnection) -> None:
            if raw:
                connection.putrequest("PUT", f"/upload/{quote(name, safe='')}{query}")
            else:
                connection.putrequest("POST", "/upload")
                connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
            connection.putheader(*("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body))))
            if respond_async:
                connection.putheader("Prefer", "respond-async")
            connection.endheaders()
            with suppress(BrokenPipeError, ConnectionResetError):  # The server may have answered early.
                _send(connection, _frames(body, chunked), midway, vanish)

        return self._attempt(attempt, send, _judge_upload)

    def download(self, file_hash: str) -> Attempt:
        """Download a file and check all bytes by the hash of the file."""
        name, size = self._known.get(file_hash, ("", 0))
        attempt = Attempt(Action.DOWNLOAD, file_hash, size, name)
        return self._attempt(attempt, lambda c: c.request("GET", f"/download/{file_hash}"), _judge_download)

    def delete(self, file_hash: str) -> Attempt:
        name, size = self._known.get(file_hash, ("", 0))
        attempt = Attempt(Action.DELETE, file_hash, size, name)
        return self._attempt(attempt, lambda c: c.request("DELETE", f"/files/{file_hash}"), _judge_delete)

    def _attempt(
        self,
        attempt: Attempt,
        send: Callable[[HTTPConnection], None],
        judge: Callable[[Attempt, HTTPResponse], None],
    ) -> Attempt:
        self.attempts.append(attempt)
        carry_out(attempt, self.address, self.timeout, send, lambda response: judge(attempt, response))
        return attempt

    # -- not recorded ------------------------------------------------------

    def ask(self, path: str, **fields: str) -> tuple[int, Any]:
        """Send a GET with the header ``fields``. Return status and document; 0 and None if no whole document came."""
        return self._request("GET", path, None, fields)

    def order(self, path: str, *, method: str = "POST", **document: Any) -> tuple[int, Any]:
        """Send a request that does not wait for the work it asks for. Return status and document as ``ask`` does."""
        return self._request(method, path, json.dumps(document).encode(), {})

    def _request(self, method: str, path: str, body: bytes | None, fields: Mapping[str, str]) -> tuple[int, Any]:
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Prefer": "respond-async",
            **fields,
        }
        with closing(HTTPConnection(self.address, timeout=self.timeout)) as connection:
            try:
                connection.request(method, path, body, {**headers, **fields})
                response = connection.getresponse()
                return response.status, json.loads(response.read())
            except (OSError, HTTPException, ValueError):
                return 0, None

    def job_state(self, attempt: Attempt) -> str:
        """Return the state of the job that a 202 named, or ``""`` if the server does not tell the state."""
        status, body = self.ask(f"/jobs/{attempt.job}")
        return str(body["state"]) if status == 200 else ""


def carry_out(
    exchange: Exchange,
    address: str,
    timeout: float,
    send: Callable[[HTTPConnection], None],
    judge: Callable[[HTTPResponse], None],
) -> None:
    """Send one request on a connection of its own, and let ``judge`` end the exchange by the answer.

    Args:
        exchange: the exchange. Its outcome is unknown if no whole answer comes.
        address: host and port of the service.
        timeout: seconds of silence after which the client gives up.
        send: a function that sends the request.
        judge: a function that reads the answer and ends the exchange.
    """
    with closing(HTTPConnection(address, timeout=timeout)) as connection:
        try:
            send(connection)
            response = connection.getresponse()
            exchange.status = response.status
            judge(response)
        except (OSError, HTTPException) as error:
            exchange.end(Outcome.UNKNOWN, repr(error))


def _frames(body: bytes, chunked: bool) -> list[bytes]:
    """Cut a body into at most FRAMES frames, in the form in which they are sent. One more frame ends a chunked body."""
    step = len(body) // FRAMES + 1
    pieces = [body[start : start + step] for start in range(0, len(body), step)]
    if not chunked:
        return pieces
    return [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]


def _send(
    connection: HTTPConnection, frames: Sequence[bytes], midway: Callable[[], object] | None, vanish: Vanish | None
) -> None:
    for number, frame in enumerate(frames):
        if midway is not None and number == len(frames) // 2:
            midway()
        if vanish is not None and number >= vanish.at * len(frames):
            if vanish.reset:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            raise HTTPException(f"the client vanished after {number} of {len(frames)} pieces")
        connection.send(frame)


def _form(data: bytes, name: str, factor: int | None) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
    fields = "" if factor is None else f'{head}"replication_factor"\r\n\r\n{factor}\r\n'
    file = f'{head}"file"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    return f"{fields}{file}".encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def _judge_upload(attempt: Attempt, response: HTTPResponse) -> None:
    body = response.read()
    if response.status not in (200, 201, 202):
        return end_without_success(attempt, body)
    said = json.loads(body)
    attempt.job = said.get("job")
    told = (said.get("file_hash"), said.get("file_size"))
    if told != (attempt.file_hash, attempt.size):
        return attempt.end(Outcome.WRONG, f"the answer speaks of {told}")
    if response.status == 202 and not attempt.job:
        return attempt.end(Outcome.WRONG, "a 202 without a job")
    return attempt.end(Outcome.ACKNOWLEDGED)


def _judge_download(attempt: Attempt, response: HTTPResponse) -> None:
    if response.status != 200:
        # A download promises only that the bytes are right. An answer that is not 200 has no bytes of the file, so it
        # breaks no promise.
        return attempt.end(Outcome.REFUSED, response.read().decode(errors="replace")[:200])
    declared = response.getheader("Content-Length")
    if declared is None:
        return attempt.end(Outcome.WRONG, "no Content-Length")
    found, received = hashlib.sha256(), 0
    while data := response.read(READ_SIZE):
        found.update(data)
        received += len(data)
    if received < int(declared):
        return attempt.end(Outcome.UNKNOWN, f"cut after {received} of {declared} bytes")
    if found.hexdigest() != attempt.file_hash:
        return attempt.end(Outcome.WRONG, f"{received} bytes with the hash {found.hexdigest()[:12]}")
    return attempt.end(Outcome.ACKNOWLEDGED)


def _judge_delete(attempt: Attempt, response: HTTPResponse) -> None:
    body = response.read()
    if response.status != 204:
        return end_without_success(attempt, body)
    return attempt.end(Outcome.ACKNOWLEDGED)


def end_without_success(exchange: Exchange, body: bytes) -> None:
    """End an exchange that the server did not acknowledge.

    A 4xx promises that nothing was done. A 5xx promises nothing: a server that lost its database cannot know what was
    done.
    """
    refused = exchange.status is not None and 400 <= exchange.status < 500
    exchange.end(Outcome.REFUSED if refused else Outcome.UNKNOWN, body.decode(errors="replace")[:200])
