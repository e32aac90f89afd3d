"""Behaviour that only a real gunicorn shows: sockets that are cut, that stall, or that send bytes that are not HTTP.

All tests share one server, which the last test stops.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator

import pytest

from storage.api.wsgi.transfers import THREADS
from storage.models import Content, File, Upload
from tests.support.sockets import (
    BEGIN,
    FORM,
    LIMIT,
    RAW,
    STALL,
    Begin,
    Server,
    answer,
    chunked,
    put,
    request,
    upload,
)

# The tests look at rows that the server has committed. The fixture ``server`` flushes the database at the end.
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_left(server: Server) -> Iterator[None]:
    """Check after each test that the server has kept neither staged bytes nor rows."""
    yield
    deadline = time.monotonic() + 5
    while list(server.staging.iterdir()) or Upload.objects.exists():
        assert time.monotonic() < deadline, "a refused upload left something"
        time.sleep(0.02)
    assert not Content.objects.exists()
    assert not File.objects.exists()


@pytest.mark.parametrize(("begin", "body"), [(upload, FORM), (put, RAW), (put, b"x")])
def test_a_body_shorter_than_declared_is_a_400(server: Server, begin: Begin, body: bytes) -> None:
    status, problem = server.ask(begin(body, length=len(body) + 50), end=True)
    assert (status, problem["detail"]) == (
        400,
        f"the body has {len(body)} of the {len(body) + 50} bytes that were declared",
    )


def test_a_body_longer_than_declared_is_a_400(server: Server) -> None:
    assert server.ask(upload(FORM, length=len(FORM) - 10))[0] == 400


@pytest.mark.parametrize(("begin", "body"), [(upload, FORM), (put, RAW)])
def test_a_client_that_goes_away_leaves_nothing(server: Server, begin: Begin, body: bytes) -> None:
    for share in (0.0, 0.1, 0.6, 0.99):
        server.connect(begin(body[: int(len(body) * share)], length=len(body))).close()


@pytest.mark.parametrize(
    ("begin", "begun", "length"), [(upload, FORM[:200], len(FORM)), (put, RAW, LIMIT), (put, b"", 5)]
)
def test_a_stall_in_a_body_is_a_408(server: Server, begin: Begin, begun: bytes, length: int) -> None:
    started = time.monotonic()
    assert server.ask(begin(begun, length=length))[0] == 408
    assert time.monotonic() - started < STALL + 2


def test_a_stall_in_a_head_is_a_408(server: Server) -> None:
    assert server.ask(b"GET /health HTTP/1.1\r\nHos")[0] == 408


def test_a_head_in_pieces_is_answered(server: Server) -> None:
    with server.connect(b"GET /health HTTP/1.1\r\nHos") as client:
        client.sendall(b"t: occ.example\r\n")
        client.sendall(b"\r\n")
        assert answer(client)[0] == 200


def test_requests_on_one_connection_are_answered_in_turn(server: Server) -> None:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for _ in range(3):
        client.request("PUT", "/health", body=b"x" * 100_000)
        response = client.getresponse()
        response.read()
        assert (response.status, response.headers["Connection"]) == (405, "keep-alive")


def test_requests_that_are_sent_ahead_are_answered_in_turn(server: Server) -> None:
    refused = upload(FORM.replace(b"file", b"text", 1))
    unwanted = request("PUT", "/health", b"x" * 500)
    with server.connect(refused + unwanted + request("GET", "/health")) as client:
        assert [answer(client)[0] for _ in range(3)] == [400, 405, 200]


def test_after_a_large_body_that_nobody_wants_the_connection_is_not_promised(server: Server) -> None:
    for body in (
        request("PUT", "/health", length=2 << 20),
        request("PUT", "/health", b"", "Transfer-Encoding: chunked"),
    ):
        with server.connect(body) as client:
            assert b"Connection: close\r\n" in client.recv(1000)


@pytest.mark.parametrize(
    "large",
    [
        put(b"x" * (LIMIT - 1), "Prefer: respond-async"),
        upload(BEGIN + b"x" * (LIMIT - 2) + b"\r\n--BB--\r\n", "Prefer: respond-async"),
        chunked(b"x" * (LIMIT - 3), "Prefer: respond-async", begin=put) + b"0\r\n\r\n",
    ],
    ids=["plain", "form", "chunked"],
)
def test_a_large_upload_that_was_read_leaves_the_connection_open(server: Server, large: bytes) -> None:
    with server.connect(large) as client:
        status, accepted = answer(client)
        assert status == 202
        client.sendall(request("DELETE", f"/files/{accepted['file_hash']}"))
        assert client.recv(100).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize(("begin", "body", "size"), [(upload, FORM, 900), (put, RAW, len(RAW))])
def test_a_chunked_upload_is_accepted_whole(server: Server, begin: Begin, body: bytes, size: int) -> None:
    status, accepted = server.ask(chunked(body, "Prefer: respond-async", begin=begin) + b"0\r\n\r\n")
    assert (status, accepted["file_size"]) == (202, size)
    path = f"/files/{accepted['file_hash']}"
    with server.connect(request("DELETE", path)) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize("rest", [b"", b"5\r\nab", b"zz\r\nab\r\n"])
@pytest.mark.parametrize(("begin", "body"), [(upload, FORM), (put, RAW)])
def test_a_chunked_upload_that_is_cut_is_a_400(server: Server, begin: Begin, body: bytes, rest: bytes) -> None:
    assert server.ask(chunked(body, begin=begin) + rest, end=True)[0] == 400


def test_an_oversized_body_is_a_413_that_the_client_can_read(server: Server) -> None:
    large = BEGIN + b"x" * 4 * LIMIT + b"\r\n--BB--\r\n"
    assert server.ask(upload(large))[0] == 413
    assert server.ask(upload(b"", length=10**15))[0] == 413
    assert server.ask(chunked(large) + b"0\r\n\r\n")[0] == 413
    assert server.ask(put(large))[0] == 413
    assert server.ask(put(b"", length=10**15))[0] == 413
    assert server.ask(chunked(large, begin=put) + b"0\r\n\r\n")[0] == 413


def test_a_digest_that_is_wrong_is_a_400_that_leaves_nothing(server: Server) -> None:
    wrong = f"Repr-Digest: sha-256=:{'A' * 43}=:"
    assert server.ask(put(RAW, wrong))[0] == 400
    assert server.ask(chunked(RAW, wrong, begin=put) + b"0\r\n\r\n")[0] == 400


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (404, request("PUT", "/nothing", b"", length=LIMIT)),
        (400, request("PUT", "/upload/a?replication_factor=77", b"", length=LIMIT)),
        (404, request("PATCH", f"/files/{'0' * 64}", b"", "Content-Type: application/json", length=1000)),
        (404, request("POST", f"/rebalance/{'0' * 64}", b"", "Content-Type: application/json", length=1000)),
        (400, request("PATCH", "/files/xyz", b"", "Content-Type: application/json", length=1000)),
        (400, request("PATCH", f"/files/{'0' * 64}?name=a", b"", "Content-Type: application/json", length=1000)),
        (400, request("PUT", "/upload/a?factor=2", b"", length=LIMIT)),
        (400, request("PUT", "/upload/a?distribution=some", b"", length=LIMIT)),
        (400, request("PUT", "/upload/a", b"", "Content-Digest: sha-256=nonsense", length=LIMIT)),
        (308, request("POST", f"/rebalance/{'0' * 64}/", b"", "Content-Type: application/json", length=1000)),
        (405, request("PUT", "/health", b"", length=LIMIT)),
        (413, request("PUT", "/upload/a", b"", length=10**10)),
        (413, upload(b"", length=10**10)),
        (415, request("PUT", "/upload/a", b"", "Content-Encoding: gzip", "Transfer-Encoding: chunked")),
        (400, request("PUT", "/upload/a", b"", "Content-Range: bytes 0-1/2", length=LIMIT)),
    ],
)
def test_a_body_that_the_head_decides_about_is_not_invited(server: Server, status: int, data: bytes) -> None:
    """The server closes the connection after the answer, because the bytes that follow may be the body."""
    expecting = data.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    with server.connect(expecting) as client:
        head = client.recv(10_000)
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"Connection: close\r\n" in head
        while client.recv(10_000):
            pass


def test_a_body_that_was_invited_leaves_the_connection_open(server: Server) -> None:
    form = upload(b"", "Expect: 100-continue", length=len(FORM))
    with server.connect(form.replace(b"/upload", b"/files/" + b"0" * 64).replace(b"POST", b"PATCH")) as client:
        assert answer(client)[0] == 404
    refused = FORM.replace(b"file", b"text", 1)
    with server.connect(upload(b"", "Expect: 100-continue", length=len(refused))) as client:
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(refused)
        assert answer(client)[0] == 400
        client.sendall(request("GET", "/health"))
        assert answer(client)[0] == 200


def test_empty_lines_before_a_request_are_skipped(server: Server) -> None:
    refused = upload(FORM.replace(b"file", b"text", 1))
    with server.connect(b"\r\n" + request("GET", "/health")) as client:
        assert answer(client)[0] == 200
        client.sendall(b"\r\n\r\n" + request("GET", "/health"))
        assert answer(client)[0] == 200
        client.sendall(b"\r\n\r\n")
        client.sendall(b"\r" + b"\n" + refused + b"\r\n")
        assert answer(client)[0] == 400
        client.sendall(request("GET", "/health") + b"\r\n")
        assert answer(client)[0] == 200
    assert server.ask(b"\r\n" * 40_000)[0] == 431


def test_a_body_that_is_not_announced_is_refused_and_not_taken_for_a_request(server: Server) -> None:
    smuggled = request("GET", "/files")
    for method, path in (("PUT", "/upload/a"), ("POST", "/upload")):
        with server.connect(request(method, path) + smuggled) as client:
            assert answer(client)[0] == 411
            assert client.recv(1000) == b""
        old = f"{method} {path} HTTP/1.0\r\n\r\nthe bytes".encode()
        assert server.ask(old)[0] == 400


def test_a_client_cannot_say_where_the_api_is_mounted(server: Server) -> None:
    """SCRIPT_NAME is ignored, because the client is no trusted proxy.

    With SCRIPT_NAME, a client could avoid a proxy's rules about paths.
    """
    for prefix in ("/files", "/evil"):
        status, listing = server.ask(request("GET", "/files", b"", f"SCRIPT_NAME: {prefix}"))
        assert (status, listing["total_files"]) == (200, 0)


def test_expect_100_continue_is_answered(server: Server) -> None:
    with server.connect(upload(b"", "Expect: 100-continue", length=len(FORM) + 9)) as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.sendall(FORM)
        client.shutdown(socket.SHUT_WR)
        assert answer(client)[0] == 400


NOT_HTTP = [
    (400, upload(FORM, length=-5)),
    (400, upload(FORM, length="abc")),
    (400, upload(FORM, "Content-Length: 3")),
    (400, upload(FORM, "Transfer-Encoding: chunked")),
    (400, request("GET", "/health", b"", "Bad Header: x")),
    (400, request("GET", "/health", b"", "X: a\0b")),
    (400, request("GET", "/\xff")),
    (400, b"GET /health HTTP/1.1\r\n\r\n"),
    (400, b"GET /health HTTP/1.1\r\nAccept: */*\r\n\r\n"),
    (400, request("GET", "/health", b"", "Host: occ.example")),
    *((400, put(b"", f"Transfer-Encoding: {codings}")) for codings in ("chunked, gzip", "gzip", "identity", "x", ",")),
    *((400, put(b"", f"Transfer-Encoding: {codings}")) for codings in ("chunked, chunked", "chunked;a=b", "")),
    *(
        (501, put(b"", f"Transfer-Encoding: {codings}"))
        for codings in ("gzip, chunked", "identity,chunked", "x, chunked")
    ),
    (501, put(b"", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked")),
    (400, put(b"", "Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0")),
    (400, b"GET /health HTTP/3.0\r\n\r\n"),
    (400, b"\x16\x03\x01\r\n\r\n"),
    (414, request("GET", "/" + "a" * 5000)),
    (417, upload(FORM, "Expect: nonsense")),
    (431, request("GET", "/health", b"", "X: " + "a" * 10_000)),
    (431, request("GET", "/health", b"", *(f"X-{i}: 1" for i in range(200)))),
    (431, request("GET", "/health", b"", *(f"X-{i}: {'a' * 8000}" for i in range(10)))[:-2]),
]


def test_what_is_not_http_is_a_problem_document(server: Server) -> None:
    for status, data in NOT_HTTP:
        answered, problem = server.ask(data)
        assert (answered, problem["status"]) == (status, status), data[:80]


def test_a_refusal_has_its_own_reason_phrase(server: Server) -> None:
    with server.connect(put(b"", "Transfer-Encoding: gzip, chunked")) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 501 Not Implemented\r\n")


def test_clients_that_send_slowly_and_steadily_are_not_cut_off(server: Server) -> None:
    """The clients send for longer than STALL_TIMEOUT, in pieces so small that a single read could gather all of them.

    Then the clients close their sending side.
    """
    in_chunks = b"%x\r\n%s\r\n" % (len(BEGIN), BEGIN)
    sized = [server.connect(begin(BEGIN, length=5000)) for begin in (upload, put)]
    chunks = [server.connect(begin(b"", "Transfer-Encoding: chunked") + in_chunks) for begin in (upload, put)]
    for _ in range(20):
        time.sleep(STALL / 10)
        for client in (*sized, *chunks):
            client.sendall(b"x" if client in sized else b"1\r\nx\r\n")
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)
            client.settimeout(10)
    for client in (*sized, *chunks):
        client.shutdown(socket.SHUT_WR)
        assert answer(client)[0] == 400
        client.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /health HTTP/1.1\r\nHos",
        request("PUT", "/health", b"x", length=500),
        request("POST", "/admin/login/", b"x", "Content-Type: application/x-www-form-urlencoded", length=500),
        request("PATCH", f"/files/{'0' * 64}", b"x", length=500),
        upload(BEGIN + b"x" * 400_000, length=LIMIT),
        put(b"x" * 400_000, length=LIMIT),
    ],
    ids=["nothing", "head", "unwanted body", "admin", "rename", "form", "file"],
)
def test_health_answers_while_clients_stall(server: Server, data: bytes) -> None:
    clients = [server.connect(data) for _ in range(3 * THREADS)]
    begun = time.monotonic()
    # In this time the clients stall, and the server then closes their connections.
    while time.monotonic() - begun < STALL + 1.5:
        assert server.health(timeout=4.0) == 200
    for client in clients:
        client.close()


def test_a_server_that_stops_takes_nothing_new_and_ends_what_it_has_begun(server: Server) -> None:
    """This test must be the last one of the module, because it ends the server."""
    field = b'\r\n--BB\r\nContent-Disposition: form-data; name="replication_factor"\r\n\r\n99\r\n--BB--\r\n'
    begun = upload(BEGIN + b"the bytes" + field)
    with server.connect(begun[:-30]) as client:
        assert server.health() == 200
        server.process.terminate()
        deadline = time.monotonic() + 2
        while server.accepts():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert server.process.poll() is None
        client.sendall(begun[-30:])
        assert answer(client)[0] == 400
    assert server.process.wait(5) == 0
