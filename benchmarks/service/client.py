"""An HTTP/1.1 client over a plain socket: it uses little processor time, because the server needs the same cores."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.service.workloads import MIB

PATIENCE = 300.0  # A request fails after this many seconds without a byte.


class BenchError(Exception):
    """An operation that is measured has failed on a server."""


class Body:
    """The body of a request: ``size`` bytes. A piece is either bytes or a file that the kernel sends."""

    def __init__(self, size: int, pieces: Iterable[bytes | Path]) -> None:
        self.size = size
        self.pieces = pieces

    @classmethod
    def of(cls, pieces: Sequence[bytes | Path]) -> Body:
        return cls(sum(len(p) if isinstance(p, bytes) else p.stat().st_size for p in pieces), pieces)

    def send(self, connection: socket.socket, head: bytes) -> None:
        if self.size <= MIB:  # With one call, the head is not sent in a packet of its own.
            parts = (piece if isinstance(piece, bytes) else piece.read_bytes() for piece in self.pieces)
            return connection.sendall(b"".join((head, *parts)))
        connection.sendall(head)
        for piece in self.pieces:
            if isinstance(piece, bytes):
                connection.sendall(piece)
            else:
                with piece.open("rb") as file:
                    connection.sendfile(file)
        return None


NOTHING = Body(0, ())


class Answer:
    """The status and the headers of an answer, with names in lower case. The body can be read once, by `receive`."""

    def __init__(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = connection.recv(64 << 10)
            if not received:
                raise BenchError("the server has closed the connection without an answer")
            head += received
        head, self._early = head.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if self.status != 204 and "content-length" not in self.headers:
            raise BenchError(f"an answer {self.status} does not say how long it is")
        self.left = int(self.headers.get("content-length", 0))  # The bytes of the body that are not yet read.
        self._connection = connection

    def receive(self, room: memoryview) -> int:
        """Read into ``room`` until it is full or the body ends, and return the number of bytes read."""
        wanted = min(len(room), self.left)
        done = min(wanted, len(self._early))
        room[:done], self._early = self._early[:done], self._early[done:]
        while done < wanted:
            count = self._connection.recv_into(room[done : min(wanted, done + MIB)])
            if not count:
                raise BenchError(f"a body ends {self.left - done} bytes early")
            done += count
        self.left -= done
        return done

    def read(self) -> bytes:
        body = bytearray(self.left)
        self.receive(memoryview(body))
        return bytes(body)


class Connection:
    """A connection that opens when it is first needed, and opens again after an answer that closes it."""

    def __init__(self, host: str, port: int, patience: float = PATIENCE) -> None:
        self._address = (host, port)
        self._patience = patience
        self._socket: socket.socket | None = None
        self._answer: Answer | None = None

    def open(self) -> socket.socket:
        if self._socket and self._answer and self._answer.headers.get("connection", "").lower() == "close":
            self.close()
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=self._patience)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Body = NOTHING) -> Answer:
        """Send a request and read the head of the answer."""
        connection = self.open()
        fields = {"Host": "{}:{}".format(*self._address), "Content-Length": str(body.size), **(headers or {})}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        # A server that refuses a body answers before the body ends.
        with suppress(BrokenPipeError, ConnectionResetError):
            body.send(connection, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        self._answer = Answer(connection)
        return self._answer

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = self._answer = None


def expect(answer: Answer, *statuses: int) -> Answer:
    """Return ``answer`` if its status is one of ``statuses``.

    Raises:
        BenchError: the answer has another status.
    """
    if answer.status not in statuses:
        raise BenchError(f"the server answers {answer.status} instead of {statuses[0]}: {answer.read()[:300]!r}")
    return answer


def get_json(connection: Connection, path: str) -> dict[str, Any]:
    return dict(json.loads(expect(connection.request("GET", path), 200).read()))
