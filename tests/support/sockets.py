"""A real gunicorn, with direct access to its sockets, and the words of HTTP that clients send to it."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from occsite.launch.process import dying_with_parent
from occsite.launch.runtime import scratch_dir
from storage import redis_connection
from storage.cluster import topology
from storage.services.provision import provision

STALL = 1
LIMIT = 2_000_000
PROJECT = Path(__file__).resolve().parents[2]
BEGIN = b'--BB\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
FORM = BEGIN + b"the bytes" * 100 + b"\r\n--BB--\r\n"
RAW = b"the bytes" * 40_000  # These bytes are too many to be held in memory, so they are staged.

Begin = Callable[..., bytes]


class Server:
    """A gunicorn process, and direct access to its socket."""

    def __init__(self, folder: Path) -> None:
        self.staging = folder / "staging"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        url = urlsplit(os.environ["DATABASE_URL"])
        database = f"{url.path.rsplit('/', 1)[0]}/{connection.settings_dict['NAME']}"
        environment = {
            **os.environ,
            "DATABASE_URL": urlunsplit(url._replace(path=database)),
            "STORAGE_DIR": str(folder),
            "PORT": str(self.port),
            "S3_PORT": "0",
            "STALL_TIMEOUT": str(STALL),
            "MAX_UPLOAD_SIZE": str(LIMIT),
        }
        gunicorn = [sys.executable, "-m", "gunicorn", "-c", "python:occsite.server.gunicorn_conf"]
        gunicorn.append("occsite.wsgi:application")
        with (folder / "gunicorn.log").open("wb") as log:
            argv = dying_with_parent(signal.SIGKILL, gunicorn)
            self.process = subprocess.Popen(argv, cwd=PROJECT, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self.process.poll() is None, (folder / "gunicorn.log").read_text()
            assert time.monotonic() < deadline, (folder / "gunicorn.log").read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return self.health() == 200
        except OSError:
            return False

    def health(self, timeout: float = 5) -> int:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        client.request("GET", "/health")
        return client.getresponse().status

    def connect(self, data: bytes) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        client.sendall(data)
        return client

    def ask(self, data: bytes, *, end: bool = False) -> tuple[int, dict[str, Any]]:
        """Send ``data``, and close the sending side if ``end``; returns the status and the JSON of the answer."""
        with self.connect(data) as client:
            if end:
                client.shutdown(socket.SHUT_WR)
            return answer(client)

    def accepts(self) -> bool:
        """True if the server takes new connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except ConnectionRefusedError:
            return False
        return True


class _Unbuffered:
    """A socket for ``HTTPResponse`` without a buffer, so that ``HTTPResponse`` reads no more than one answer."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client

    def makefile(self, mode: str) -> Any:
        return self._client.makefile(mode, buffering=0)  # type: ignore[call-overload]


def answer(client: socket.socket) -> tuple[int, dict[str, Any]]:
    response = http.client.HTTPResponse(cast(socket.socket, _Unbuffered(client)))
    response.begin()
    body = response.read()
    assert response.headers["Content-Type"] in ("application/json", "application/problem+json"), body
    document = json.loads(body)
    assert ("code" in document) == (response.headers["Content-Type"] == "application/problem+json"), body
    return response.status, document


def request(method: str, path: str, body: bytes = b"", *headers: str, length: int | str | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: occ.example", *headers]
    if length is not None or body:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def upload(body: bytes, *headers: str, length: int | str | None = None) -> bytes:
    multipart = "Content-Type: multipart/form-data; boundary=BB"
    return request("POST", "/upload", body, multipart, *headers, length=length)


def put(body: bytes, *headers: str, length: int | str | None = None) -> bytes:
    return request("PUT", "/upload/a.txt", body, *headers, length=length)


def chunked(body: bytes, *headers: str, begin: Begin = upload) -> bytes:
    """A request with a chunked body that is not ended by a last chunk."""
    pieces = (body[i : i + 100] for i in range(0, len(body), 100))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return begin(b"", "Transfer-Encoding: chunked", *headers) + chunks


@pytest.fixture(scope="module")
def server(django_db_setup: None, django_db_blocker: Any) -> Iterator[Server]:
    """A server with a short STALL_TIMEOUT and a small MAX_UPLOAD_SIZE. No worker ingests."""
    folder = Path(tempfile.mkdtemp(prefix="occ-sockets-"))
    configuration = settings.OCC
    settings.OCC = dataclasses.replace(configuration, storage_dir=folder, num_nodes=5, replication_factor=3)
    with django_db_blocker.unblock():
        topology.forget()
        provision(settings.OCC)
        running = Server(folder)
        try:
            yield running
        finally:
            running.process.terminate()
            running.process.wait(15)
            call_command("flush", interactive=False, verbosity=0)
            redis_connection.connect().flushdb()
            settings.OCC = configuration
            topology.forget()
            shutil.rmtree(folder)
            shutil.rmtree(scratch_dir(folder), ignore_errors=True)
