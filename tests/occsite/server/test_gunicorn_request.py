"""The application soon gets the part of a body that has arrived, and the whole body if it asks for the whole."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.config import Config

from occsite.server.gunicorn_request import SOON, Parser, Refused
from occsite.server.steady_socket import SteadySocket
from storage.conf import ANYWHERE

SIZE = 40
PAUSE = SOON / 8


@pytest.fixture
def pair() -> Iterator[tuple[SteadySocket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with client, SteadySocket(accepted, 10.0) as server:
        server.setblocking(True)
        yield server, client


def request(pair: tuple[SteadySocket, socket.socket], *fields: str) -> Any:
    """Send the head of a request, with ``fields``, and return the parsed request."""
    server, client = pair
    client.sendall("\r\n".join(["PUT /upload/a HTTP/1.1", "Host: a", *fields, "", ""]).encode())
    return next(Parser(Config(), server, ("127.0.0.1", 1)))


@pytest.mark.parametrize(
    ("prefix", "taken"),
    [("/upload", "/upload"), ("/upload/", "/upload"), ("/upload/a", "/upload/a"), ("/", ""), ("", "")],
)
def test_a_trusted_proxy_says_where_the_api_is_mounted(
    pair: tuple[SteadySocket, socket.socket], settings: Any, prefix: str, taken: str
) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, trusted_proxies=ANYWHERE)
    assert ("SCRIPT_NAME", taken) in request(pair, f"SCRIPT_NAME: {prefix}").headers


@pytest.mark.parametrize("prefix", ["/evil", "/up", "upload", "/upload/a/b"])
def test_a_mount_that_the_path_is_not_below_is_refused(
    pair: tuple[SteadySocket, socket.socket], settings: Any, prefix: str
) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, trusted_proxies=ANYWHERE)
    with pytest.raises(Refused):
        request(pair, f"SCRIPT_NAME: {prefix}")


def trickle(client: socket.socket, chunked: bool) -> threading.Thread:
    def send() -> None:
        for _ in range(SIZE):
            client.sendall(b"1\r\nx\r\n" if chunked else b"x")
            time.sleep(PAUSE)
        if chunked:
            client.sendall(b"0\r\n\r\n")

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("field", [f"Content-Length: {SIZE}", "Transfer-Encoding: chunked"])
def test_what_a_slow_client_has_sent_is_there_after_a_second(
    pair: tuple[SteadySocket, socket.socket], field: str
) -> None:
    body = request(pair, field).body
    sending = trickle(pair[1], "chunked" in field)
    begun = time.monotonic()
    first = body.read1(1 << 20)
    assert 1 < len(first) < SIZE
    assert time.monotonic() - begun < SOON + 0.5
    assert first + body.read() == b"x" * SIZE, "whoever asks for all of a body gets all of it"
    assert body.read1(10) == b""
    sending.join()


@pytest.mark.parametrize("field", [f"Content-Length: {SIZE}", "Transfer-Encoding: chunked"])
def test_a_body_is_invited_once_and_when_it_is_read(pair: tuple[SteadySocket, socket.socket], field: str) -> None:
    body = request(pair, field, "Expect: 100-continue").body
    client = pair[1]
    with pytest.raises(BlockingIOError):
        client.recv(1, socket.MSG_DONTWAIT)
    data = b"x" * SIZE
    client.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (SIZE, data) if "chunked" in field else data)
    assert body.read1(5) + body.read() == data
    assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
