"""Errors are reported to a service that speaks Sentry's protocol: here a server that keeps what it gets."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from occsite import sentry
from storage.exceptions import ConfigurationError
from tests.occsite.test_logs import logged

FAIL = """
secret = "what belongs to an owner"
try: 1 / 0
except ZeroDivisionError as error: ours.exception("request.failed", exc_info=error, node="node_001")
ours.warning("slow"); theirs.warning("slow")
theirs.error("broken pipe")
import sentry_sdk; sentry_sdk.flush(5)
"""


class Collector(HTTPServer):
    """A server that keeps the events it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.events: list[dict[str, Any]] = []


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        lines = [json.loads(line) for line in body.splitlines()]
        self.server.events += [line for line in lines if "event_id" in line and "level" in line]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_errors_are_reported_without_what_belongs_to_owners(collector: Collector) -> None:
    logged(FAIL, SENTRY_DSN=f"http://key@127.0.0.1:{collector.server_port}/1")
    ours, theirs = sorted(collector.events, key=lambda event: str(event["logger"]))
    assert (ours["message"], ours["logger"], ours["level"]) == ("request.failed", "ours", "error")
    assert (ours["extra"]["node"], ours["extra"]["request_id"]) == ("node_001", "abc")
    (error,) = ours["exception"]["values"]
    assert (error["type"], error["value"]) == ("ZeroDivisionError", "division by zero")
    assert ours["release"].startswith("occ-storage@")
    assert theirs["logentry"]["message"] == "broken pipe"
    assert "what belongs to an owner" not in json.dumps(collector.events[0]["exception"]["values"][0].get("vars", {}))
    assert all("vars" not in frame for frame in error["stacktrace"]["frames"])


LEAK = """
address = "/share/0123456789abcdef/a.txt?X-Amz-Signature=fedcba9876543210"
try: raise ValueError(f"refused: {address}")
except ValueError as error: ours.exception("request.failed", exc_info=error, paths=[address])
theirs.error("Internal Server Error: %s", address)
import sentry_sdk; sentry_sdk.flush(5)
"""


def test_what_opens_a_file_is_masked_in_reports(collector: Collector) -> None:
    logged(LEAK, SENTRY_DSN=f"http://key@127.0.0.1:{collector.server_port}/1")
    assert len(collector.events) == 2
    reports = json.dumps(collector.events)
    assert reports.count("/share/.../a.txt?X-Amz-Signature=...") >= 3
    assert "0123456789abcdef" not in reports
    assert "fedcba9876543210" not in reports


def test_while_the_service_is_away_nothing_waits_and_nothing_fails() -> None:
    lines = logged("ours.error('failed'); theirs.error('failed')", SENTRY_DSN="http://key@127.0.0.1:9/1")
    assert [line["event"] for line in lines if line["logger"] in ("ours", "theirs")] == ["failed", "failed"]


def test_without_an_address_the_library_is_not_loaded() -> None:
    assert [line["event"] for line in logged("import sys; ours.error(str('sentry_sdk' in sys.modules))")] == ["False"]


def test_an_address_that_is_malformed_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="SENTRY_DSN"):
        sentry.begin("https://sentry.example.org/1")
