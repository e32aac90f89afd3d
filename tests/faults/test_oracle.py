"""The oracle notices every kind of lie. Each test has a server that lies in one way; one test has an honest server."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.faults.journal import BOUNDARY, Action, Attempt, Journal, Outcome
from tests.faults.oracle import Expected, Findings, Oracle, expectation

Lie = Callable[["FakeServer"], None]
DATA = b"some bytes that are worth keeping"
HASH = hashlib.sha256(DATA).hexdigest()


class FakeServer(ThreadingHTTPServer):
    """A server that implements the API in memory.

    A test changes the data or the answers of the server without a request of the client.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.shown: dict[str, int] = {}  # Hash → a false status for GET /files/<hash>.
        self.nodes = ["node_000", "node_001", "node_002"]
        self.job_state = "succeeded"
        self.declared: int | None = 0  # Bytes added to Content-Length; None to leave the header out.
        self.upload_status = 201

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"]))
        data = form.partition(b"octet-stream\r\n\r\n")[2].removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode())
        file_hash = hashlib.sha256(data).hexdigest()
        self.server.files[file_hash] = data
        job = {"job": "1"} if self.server.upload_status == 202 else {}
        self.say(self.server.upload_status, {"file_hash": file_hash, "file_size": len(data), **job})

    def do_DELETE(self) -> None:
        found = self.server.files.pop(self.path.rpartition("/")[2], None)
        self.say(404 if found is None else 204, {})

    def do_GET(self) -> None:
        kind, file_hash = self.path.partition("?")[0].split("/")[1:3] if self.path.count("/") > 1 else ("list", "")
        data = self.server.files.get(file_hash)
        if kind == "list":
            entries = [entry(h, d) for h, d in self.server.files.items()]
            self.say(200, {"files": entries, "next": None})
        elif kind == "jobs":
            self.say(200, {"state": self.server.job_state})
        elif kind == "files":
            self.say(self.server.shown.get(file_hash, 404 if data is None else 200), {})
        elif data is None:
            self.say(404, {})
        elif kind == "verify":
            chunk = {"index": 0, "size": len(DATA), "nodes": self.server.nodes}
            self.say(200, {"retrievable": True, "missing_chunks": [], "chunks": [chunk]})
        else:
            self.send_bytes(data)

    def send_bytes(self, data: bytes) -> None:
        self.send_response(200)
        if self.server.declared is not None:
            self.send_header("Content-Length", str(len(data) + self.server.declared))
        self.end_headers()
        self.wfile.write(data)

    def say(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode() if status != 204 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def entry(file_hash: str, data: bytes) -> dict[str, Any]:
    return {"file_hash": file_hash, "file_size": len(DATA) if file_hash == HASH else len(data), "replication_factor": 3}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def journal(server: FakeServer) -> Journal:
    return Journal(server.base_url, timeout=10)


def test_an_honest_server_is_believed(journal: Journal) -> None:
    journal.upload(DATA, "kept", factor=3)
    gone = journal.upload(b"gone", "gone").file_hash
    journal.delete(gone)
    journal.download(HASH)
    journal.download(gone)
    Oracle(journal).check()


def corrupt(server: FakeServer) -> None:
    server.files[HASH] = DATA[:-1] + b"!"


def truncate(server: FakeServer) -> None:
    server.files[HASH] = DATA[:-1]


def announce_more(server: FakeServer) -> None:
    server.declared = 1


def announce_nothing(server: FakeServer) -> None:
    server.declared = None


def lose(server: FakeServer) -> None:
    del server.files[HASH]


def conjure(server: FakeServer) -> None:
    server.files[hashlib.sha256(b"ghost").hexdigest()] = b"ghost"


def halve(server: FakeServer) -> None:
    del server.files[HASH]
    server.shown[HASH] = 200


def lose_a_replica(server: FakeServer) -> None:
    server.nodes = ["node_000", "node_001", "node_001"]


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (corrupt, "wrong answer"),
        (truncate, "wrong answer"),
        (announce_more, "unreadable"),
        (announce_nothing, "unreadable"),
        (lose, "lost"),
        (lose, "denied"),
        (conjure, "ghost"),
        (halve, "half there"),
        (lose_a_replica, "short of 3 replicas"),
    ],
)
def test_a_lie_is_seen(server: FakeServer, journal: Journal, lie: Lie, said: str) -> None:
    journal.upload(DATA, "kept")
    lie(server)
    journal.download(HASH)
    found = Oracle(journal).violations()
    assert any(violation.startswith(said) for violation in found), found


def test_a_deleted_file_that_comes_back_is_seen(server: FakeServer, journal: Journal) -> None:
    journal.upload(DATA, "gone")
    journal.delete(HASH)
    server.files[HASH] = DATA
    journal.download(HASH)
    found = " ".join(Oracle(journal).violations())
    assert "resurrected" in found
    assert "served after its deletion" in found


def test_a_job_that_never_ends_is_seen(server: FakeServer, journal: Journal) -> None:
    server.upload_status, server.job_state = 202, "running"
    journal.upload(DATA, "kept", respond_async=True)
    assert "job not terminal" in " ".join(Oracle(journal).violations())


@pytest.mark.parametrize("status", [400, 500])
def test_what_was_refused_must_not_be_there(server: FakeServer, journal: Journal, status: int) -> None:
    server.upload_status = status
    journal.upload(DATA, "refused")
    found = " ".join(Oracle(journal).violations())
    assert ("resurrected" in found) == (status == 400)
    assert ("crash" in found) == (status == 500)


def test_what_is_wrong_inside_is_passed_on(journal: Journal) -> None:
    inside: Findings = {"staging not empty": ["a", "b"], "false negatives": []}
    found = Oracle(journal).violations(inside)
    assert found == ["staging not empty: ['a', 'b']"]


def test_an_answer_about_another_file_is_wrong(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "do_POST", lambda self: self.say(201, {"file_hash": "00", "file_size": 1}))
    assert journal.upload(DATA, "kept").outcome is Outcome.WRONG


def test_no_answer_is_neither_yes_nor_no(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "do_POST", lambda self: self.close_connection or self.rfile.close())
    attempt = journal.upload(DATA, "unknown")
    assert (attempt.outcome, attempt.took_effect_by) == (Outcome.UNKNOWN, math.inf)
    assert expectation([attempt]) is Expected.EITHER


A, R, U = Outcome.ACKNOWLEDGED, Outcome.REFUSED, Outcome.UNKNOWN
UP, DOWN = Action.UPLOAD, Action.DELETE


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([(UP, A, 0, 1)], Expected.PRESENT),
        ([(UP, U, 0, 1)], Expected.EITHER),
        ([(UP, R, 0, 1)], Expected.ABSENT),
        ([(UP, A, 0, 1), (DOWN, A, 2, 3)], Expected.ABSENT),
        ([(UP, A, 0, 1), (DOWN, U, 2, 3)], Expected.EITHER),
        ([(UP, A, 0, 1), (DOWN, R, 2, 3)], Expected.PRESENT),
        ([(UP, A, 0, 3), (DOWN, A, 1, 2)], Expected.EITHER),
        ([(UP, A, 0, 1), (DOWN, A, 2, 3), (UP, A, 4, 5)], Expected.PRESENT),
        ([(UP, U, 0, 1), (DOWN, A, 2, 3)], Expected.EITHER),  # The upload may still take effect after the deletion.
        ([(UP, A, 0, 1), (DOWN, U, 2, 3), (UP, A, 4, 5)], Expected.EITHER),
    ],
)
def test_what_must_be_follows_from_what_was_said(
    history: list[tuple[Action, Outcome, float, float]], expected: Expected
) -> None:
    attempts = [Attempt(action, HASH, begun=b, ended=e, outcome=outcome) for action, outcome, b, e in history]
    assert expectation(attempts) is expected
