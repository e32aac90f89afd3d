"""Crowds of idle clients, descriptors that run out, and clients that are slow but steady.

The tests share one installation. Each API process takes at most 448 connections, as under ``ulimit -n 1024``.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count

import pytest

from tests.faults.load import load
from tests.faults.wrecks import MIB
from tests.support.installation import Installation, bytes_of, log_of
from tests.support.system import System

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 1 * MIB
CROWD = 2200
WATCHED = 10.0  # Seconds for which answers are timed.
PROMPTLY = 1.0  # Seconds that a prompt answer may take.
# Bytes per second of a slow download. The client's kernel acknowledges 128 KiB at a time, and the server sees progress
# only at an acknowledgement. 128 KiB must therefore take less than STALL_TIMEOUT, which is 2 s.
SLOW = 120_000


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    limited = "--worker-connections 448"
    return make_installation(INGEST_WORKERS="1", CHUNK_SIZE=str(CHUNK_SIZE), GUNICORN_CMD_ARGS=limited)


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Raise the limit of open descriptors of this process, in which all clients run."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CROWD:
        pytest.skip(f"the crowd needs {2 * CROWD} descriptors, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def seconds(system: System, path: str) -> float:
    """Return how many seconds an answer takes on a new connection. The status of the answer must be 200."""
    begun = time.monotonic()
    client = http.client.HTTPConnection("127.0.0.1", system.port, timeout=20)
    client.request("GET", path)
    assert client.getresponse().status == 200
    client.close()
    return time.monotonic() - begun


def worst(system: System) -> dict[str, float]:
    """Ask for two pages for WATCHED seconds. Return the slowest answer of each page, in seconds."""
    found = {"/health": 0.0, "/admin/login/": 0.0}
    until = time.monotonic() + WATCHED
    while time.monotonic() < until:
        for path in found:
            found[path] = max(found[path], seconds(system, path))
        time.sleep(0.05)
    return found


@contextmanager
def crowd(system: System, size: int, *beginnings: bytes) -> Iterator[None]:
    """Let ``size`` clients send the beginning of a request, and then nothing during the ``with`` block."""
    with ExitStack() as clients:
        for number in range(size):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", system.port), timeout=10))
            client.sendall(beginnings[number % len(beginnings)])
        yield


@contextmanager
def transfers(installation: Installation, label: str, chance: random.Random) -> Iterator[None]:
    """Let clients upload and download, and one slow client download, during the ``with`` block."""
    data, ended = bytes_of(f"{label} slow", 6 * MIB), threading.Event()
    file_hash = installation.journal.upload(data, f"{label} slow").file_hash
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(read_slowly, installation.system, file_hash, ended)
        try:
            with load(installation, label, chance, chunk_size=CHUNK_SIZE, chunks=4) as attempts:
                yield
        finally:
            ended.set()
        assert slow.result() == file_hash
    assert attempts, "nothing was transferred"
    failed = [str(attempt) for attempt in attempts if attempt.status not in (200, 201, 204)]
    assert not failed


def read_slowly(system: System, file_hash: str, ended: threading.Event) -> str:
    """Download at SLOW bytes per second until ``ended`` is set, then read the rest at once. Return the digest."""
    digest = hashlib.sha256()
    with socket.socket() as client:
        client.settimeout(20)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        client.connect(("127.0.0.1", system.port))
        client.sendall(f"GET /download/{file_hash} HTTP/1.1\r\nHost: occ\r\n\r\n".encode())
        response = http.client.HTTPResponse(client)
        response.begin()
        while piece := response.read(MIB if ended.is_set() else SLOW // 4):
            digest.update(piece)
            ended.wait(0.25)
    return digest.hexdigest()


@pytest.mark.parametrize(
    "beginnings",
    [
        [b""],
        [b"GET /health HTTP/1.1\r\nHos", b""],
        [b"GET /health HTTP/1.1\r\nHost: occ\r\n\r\n"],
        [b"POST /admin/login/ HTTP/1.1\r\nHost: occ\r\nContent-Length: 500\r\n\r\nx"],
    ],
    ids=["silent", "in a head", "kept", "in a form"],
)
def test_a_crowd_of_idle_clients_takes_nobodys_place(
    installation: Installation, chance: random.Random, request: pytest.FixtureRequest, beginnings: list[bytes]
) -> None:
    with (
        transfers(installation, request.node.name, chance),
        crowd(installation.system, CROWD, *beginnings),
    ):
        seconds(installation.system, "/health")  # The requests of the crowd are answered before this request.
        found = worst(installation.system)
    print(found)
    assert max(found.values()) < PROMPTLY
    installation.settle("2,200 idle clients")


def limit_with_free(pid: int, free: int) -> int:
    """Find the limit that leaves a process exactly ``free`` descriptors.

    The numbers of the process's open descriptors may have gaps.
    """
    open_ones = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return next(limit for limit in count() if limit - sum(fd < limit for fd in open_ones) == free)


def test_an_api_without_descriptors_goes_on(installation: Installation, chance: random.Random) -> None:
    system = installation.system
    processes = system.children("api")
    usual = resource.prlimit(processes[0], resource.RLIMIT_NOFILE)
    with transfers(installation, "without descriptors", chance), crowd(system, 300, b""):
        for pid in processes:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit_with_free(pid, 3), usual[1]))
        try:
            with crowd(system, 100, b""):
                found = worst(system)
        finally:
            for pid in processes:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    print(found)
    assert "connections.short_of_descriptors" in log_of(system, "api"), "no descriptor was missing"
    assert system.children("api") == processes
    assert max(found.values()) < 2 * PROMPTLY
    installation.settle("no descriptors left")


def test_a_client_that_reads_slowly_gets_the_whole_file(installation: Installation) -> None:
    """STALL_TIMEOUT is 2 s. The client takes 9 s for a chunk, and the server's kernel buffers several chunks."""
    journal, data = installation.journal, bytes_of("slow reader", 9 * MIB)
    file_hash = journal.upload(data, "slow reader").file_hash
    ended = threading.Event()
    threading.Timer(20, ended.set).start()
    assert read_slowly(installation.system, file_hash, ended) == file_hash
    installation.settle("a client that reads slowly")


@pytest.mark.parametrize("chunked", [False, True], ids=["with a declared length", "in chunks"])
def test_an_upload_that_comes_slowly_is_stored(installation: Installation, chunked: bool) -> None:
    """The upload sends 1 kB/s for 25 s. Without a sign of life, the sweep would drop the upload after 14 s."""
    first, steady = 300_000, [bytes_of(f"steady {chunked} {i}", 100) for i in range(250)]
    data = bytes_of(f"slow sender {chunked}", first) + b"".join(steady)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data)}"
    with socket.create_connection(("127.0.0.1", installation.system.port), timeout=60) as client:

        def send(piece: bytes) -> None:
            client.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)

        client.sendall(f"PUT /upload/slow HTTP/1.1\r\nHost: occ\r\n{framing}\r\n\r\n".encode())
        send(data[:first])
        for piece in steady:
            time.sleep(0.1)
            send(piece)
        if chunked:
            client.sendall(b"0\r\n\r\n")
        response = http.client.HTTPResponse(client)
        response.begin()
        assert (response.status, hashlib.sha256(data).hexdigest() in response.read().decode()) == (201, True)
