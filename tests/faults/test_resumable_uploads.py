"""Uploads in many requests: clients whose lines break anywhere, and an API that is killed while bytes arrive.

An offset that a client was told is never taken back, the file has every byte, and no request hangs.
"""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import time
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urlsplit

import pytest

from tests.support.installation import bytes_of
from tests.support.system import System, make_system, wait_until

__all__ = ["make_system"]

pytestmark = [pytest.mark.system, pytest.mark.faults]

MIB = 1 << 20
SIZE = 48 * MIB + 4321  # The upload has segments, which are stored while the rest of it still arrives.
INTERRUPTIONS = 50
KILLS = 20
PATIENCE = 60.0  # Seconds for one answer, including a restart of the API.
STALL_TIMEOUT = "60"
PROMPT = 30.0  # Seconds for a prompt answer: no client waits until the request of an earlier client times out.
RESET = struct.pack("ii", 1, 0)  # A value of SO_LINGER: a close resets the connection.


class Client:
    """A client of tus that remembers the offsets that the server told it."""

    def __init__(self, system: System, data: bytes) -> None:
        self.system = system
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
        return HTTPConnection("127.0.0.1", self.system.port, timeout=PATIENCE)

    def check_the_file(self) -> None:
        """Send the rest, wait for the file, and compare it."""
        while self.offset() < len(self.data):
            self.send(len(self.data))
        file_hash = hashlib.sha256(self.data).hexdigest()
        wait_until(lambda: self.ask("GET", f"/files/{file_hash}", {}).status == 200, PATIENCE)
        with closing(self.connect()) as connection:
            connection.request("GET", f"/download/{file_hash}")
            assert connection.getresponse().read() == self.data
        staging = self.system.storage_dir / "staging"
        wait_until(lambda: not list(staging.iterdir()), PATIENCE, lambda: str(list(staging.iterdir())))


@pytest.fixture(scope="module")
def system(make_system: Callable[..., System]) -> System:
    found = make_system(INGEST_WORKERS="1", STALL_TIMEOUT=STALL_TIMEOUT)
    found.start()
    return found


def test_a_line_that_breaks_fifty_times_loses_nothing(system: System, chance: random.Random) -> None:
    """A third of the connections are closed, a third are reset, and a third stay open without any more bytes."""
    client = Client(system, bytes_of("fifty interruptions", SIZE))
    hanging: list[HTTPConnection] = []
    for number in range(INTERRUPTIONS):
        # If fewer bytes than this remain, the upload ends early, and another one begins.
        size = chance.randrange(1, SIZE // INTERRUPTIONS)
        connection = client.begin_to_send(size)
        assert connection.sock is not None
        if number % 3 == 2:
            hanging.append(connection)
            continue
        if number % 3 == 1:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()
    client.check_the_file()
    for connection in hanging:
        connection.close()
    print(f"{INTERRUPTIONS} interruptions, the slowest answer after {client.slowest:.2f} s")
    assert client.slowest < PROMPT


def test_an_api_that_is_killed_twenty_times_loses_nothing(system: System, chance: random.Random) -> None:
    client = Client(system, bytes_of("twenty kills", SIZE))
    for _ in range(KILLS):
        client.send(chance.randrange(1, SIZE // KILLS // 2))
        connection = client.begin_to_send(chance.randrange(1, SIZE // KILLS // 2))
        time.sleep(chance.uniform(0, 0.05))
        before = system.kill("api")
        connection.close()
        wait_until(lambda before=before: system.pids().get("api", before) != before, PATIENCE)  # type: ignore[misc]
    client.check_the_file()
    print(f"{KILLS} kills, the slowest answer after {client.slowest:.2f} s")
