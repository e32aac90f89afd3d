"""A client of tus over a network, whose connections break. The client remembers the offsets that the server told it."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import time
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.system import wait_until

PATIENCE = 60.0  # Seconds for one answer, including a restart of the API.
RESET = struct.pack("ii", 1, 0)  # A value of SO_LINGER: a close resets the connection.


class Client:
    """A client of tus that remembers the offsets that the server told it."""

    def __init__(self, port: int, staging: Path, data: bytes) -> None:
        self.port = port
        self.staging = staging
        self.data = data
        self.told = 0
        self.slowest = 0.0
        created = self.ask("POST", "/uploads/", {"Upload-Length": str(len(data))})
        assert created.status == 201
        self.path = urlsplit(created.headers["Location"]).path

    def ask(self, method: str, path: str, fields: dict[str, str], body: bytes = b"") -> HTTPResponse:
        """Send a whole request, and send it again until the API answers."""
        begun = time.monotonic()
        while True:
            with closing(self.connect()) as connection, suppress(OSError, HTTPException):
                connection.request(method, path, body, {"Tus-Resumable": "1.0.0", **fields})
                response = connection.getresponse()
                response.read()
                if response.status < 500:
                    self.slowest = max(self.slowest, time.monotonic() - begun)
                    return response
            assert time.monotonic() - begun < PATIENCE, "it hangs"
            time.sleep(0.1)

    def offset(self) -> int:
        """Ask for the offset.

        An answer must not be below an offset that was told before, or above the number of bytes sent.
        """
        response = self.ask("HEAD", self.path, {})
        assert response.status == 200, response.status
        offset = int(response.headers["Upload-Offset"])
        assert self.told <= offset <= len(self.data), (self.told, offset)
        self.told = offset
        return offset

    def send(self, size: int) -> None:
        """Send some bytes in a request that is answered."""
        offset = self.offset()
        fields = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        response = self.ask("PATCH", self.path, fields, self.data[offset : offset + size])
        if response.status == 204:
            self.told = int(response.headers["Upload-Offset"])
            assert self.told == min(offset + size, len(self.data))
        else:
            assert response.status == 409, response.status  # The API died after it had kept the bytes.

    def begin_to_send(self, size: int) -> HTTPConnection:
        """Announce all the remaining bytes, send ``size`` of them, and return the connection."""
        offset = self.offset()
        connection = self.connect()
        connection.putrequest("PATCH", self.path)
        connection.putheader("Tus-Resumable", "1.0.0")
        connection.putheader("Upload-Offset", str(offset))
        connection.putheader("Content-Type", "application/offset+octet-stream")
        connection.putheader("Content-Length", str(len(self.data) - offset))
        connection.endheaders()
        with suppress(OSError):
            connection.send(self.data[offset : offset + size])
        return connection

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def check_the_file(self) -> None:
        """Send the remaining bytes, wait for the file, and compare its bytes."""
        while self.offset() < len(self.data):
            self.send(len(self.data))
        file_hash = hashlib.sha256(self.data).hexdigest()
        wait_until(lambda: self.ask("GET", f"/files/{file_hash}", {}).status == 200, PATIENCE)
        with closing(self.connect()) as connection:
            connection.request("GET", f"/download/{file_hash}")
            assert connection.getresponse().read() == self.data
        wait_until(lambda: not list(self.staging.iterdir()), PATIENCE, lambda: str(list(self.staging.iterdir())))

    def suffer(self, times: int, chance: random.Random) -> list[HTTPConnection]:
        """Begin to send the remaining bytes many times, and break the connection at a random byte.

        A third of the connections are closed, and a third are reset. A third stay open without any more bytes.
        The method returns the open connections.
        """
        hanging: list[HTTPConnection] = []
        for number in range(times):
            # If fewer bytes than this remain, the upload ends early.
            size = chance.randrange(1, len(self.data) // times)
            connection = self.begin_to_send(size)
            assert connection.sock is not None
            if number % 3 == 2:
                hanging.append(connection)
                continue
            if number % 3 == 1:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()
        return hanging
