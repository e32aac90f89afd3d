"""The servers that are measured: OCC Storage, and other servers that keep files under names."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.service.client import PATIENCE, Answer, BenchError, Body, Connection, expect
from benchmarks.service.processes import Trees, trees
from benchmarks.service.workloads import Sample

BOUNDARY = "occ-bench-" + os.urandom(16).hex()


class Target(ABC):
    """A server. ``name`` is its name in the tables, and ``programs`` gives its processes, if they are known."""

    def __init__(self, name: str, url: str, programs: Callable[[], Trees] = dict) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise BenchError(f"{url!r} is no address that begins with http://")
        self.name = name
        self.programs = programs
        self.root = parts.path.rstrip("/")
        self._address = (parts.hostname, parts.port or 80)

    def connect(self, patience: float = PATIENCE) -> Connection:
        """Return a connection that waits ``patience`` seconds for a byte."""
        return Connection(*self._address, patience)

    @abstractmethod
    def upload(self, connection: Connection, sample: Sample, *, raw: bool) -> None:
        """Store a file."""

    @abstractmethod
    def ask(self, connection: Connection, method: str, sample: Sample) -> Answer:
        """Send a GET or DELETE request for a file."""

    def download(self, connection: Connection, sample: Sample) -> None:
        answer = expect(self.ask(connection, "GET", sample), 200)
        if answer.left != len(sample.received):
            raise BenchError(f"{sample.digest} comes back with {answer.left} bytes")
        answer.receive(sample.received)

    def delete(self, connection: Connection, sample: Sample) -> None:
        """Delete a file, if it exists."""
        expect(self.ask(connection, "DELETE", sample), 204, 200, 202, 404).read()

    def check(self, sample: Sample) -> None:
        """Raise an error if the downloaded bytes differ from the uploaded bytes."""
        if sha256(sample.received).hexdigest() != sample.digest:
            raise BenchError(f"{self.name}: {sample.digest} came back with other bytes")


class OccStorage(Target):
    """This system."""

    def upload(self, connection: Connection, sample: Sample, *, raw: bool) -> None:
        if raw:
            headers, body = {"Content-Type": "application/octet-stream"}, Body.of([sample.path])
            answer = connection.request("PUT", f"{self.root}/upload/{sample.path.name}", headers, body)
        else:
            headers, body = form(sample.path)
            answer = connection.request("POST", f"{self.root}/upload", headers, body)
        found = json.loads(expect(answer, 201).read())["file_hash"]
        if found != sample.digest:
            raise BenchError(f"{sample.digest} is called {found}")

    def ask(self, connection: Connection, method: str, sample: Sample) -> Answer:
        path = "download" if method == "GET" else "files"
        return connection.request(method, f"{self.root}/{path}/{sample.digest}")


class WebDav(Target):
    """Any server that stores a file by ``PUT name``, sends it by ``GET name`` and removes it by ``DELETE name``."""

    headers: Mapping[str, str] | None = None

    def upload(self, connection: Connection, sample: Sample, *, raw: bool) -> None:
        path = f"{self.root}/{sample.path.name}"
        expect(connection.request("PUT", path, self.headers, Body.of([sample.path])), 201, 204).read()

    def ask(self, connection: Connection, method: str, sample: Sample) -> Answer:
        return connection.request(method, f"{self.root}/{sample.path.name}", self.headers)


class Swift(WebDav):
    """OpenStack Swift with version 1 authentication.

    The environment variables ST_USER and ST_KEY mean the same as for Swift's own client.
    """

    def __init__(self, name: str, url: str, programs: Callable[[], Trees] = dict) -> None:
        super().__init__(name, url, programs)
        user, key = os.environ.get("ST_USER", "test:tester"), os.environ.get("ST_KEY", "testing")
        connection = self.connect()
        answer = connection.request("GET", "/auth/v1.0", {"X-Auth-User": user, "X-Auth-Key": key})
        expect(answer, 200, 204).read()
        self.headers = {"X-Auth-Token": answer.headers["x-auth-token"]}
        self.root = urlsplit(answer.headers["x-storage-url"]).path + "/occ-bench"
        expect(connection.request("PUT", self.root, self.headers), 201, 202).read()
        connection.close()


KINDS: dict[str, type[Target]] = {"occ": OccStorage, "webdav": WebDav, "swift": Swift}


def named(text: str) -> Target:
    """Return the server that ``KIND=URL`` or ``KIND=URL,PIDFILE`` describes.

    Each line of the file PIDFILE begins with the process id of one of the server's processes.

    Raises:
        BenchError: the kind is not known, or the server does not answer.
    """
    kind, _, rest = text.partition("=")
    if kind not in KINDS:
        raise BenchError(f"{text!r} does not begin with one of {', '.join(KINDS)}, and =")
    url, _, pid_file = rest.partition(",")
    return KINDS[kind](kind, url, (lambda: _listed(Path(pid_file))) if pid_file else dict)


def form(path: Path) -> tuple[dict[str, str], Body]:
    """Return the headers and the body of a form with one file."""
    disposition = f'Content-Disposition: form-data; name="file"; filename="{path.name}"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return headers, Body.of([head.encode(), path, f"\r\n--{BOUNDARY}--\r\n".encode()])


def _listed(pid_file: Path) -> Trees:
    return trees({line: int(line.split()[0]) for line in pid_file.read_text().splitlines() if line.strip()})
