"""The line in the log for each request."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from ipaddress import ip_network
from typing import Any

import pytest
import structlog
from django.test import RequestFactory

from storage.api.wsgi.middleware import RequestLog
from tests.support.api import WholeClient
from tests.support.cluster import ClusterUnderTest, content_of


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The log entries of requests, each with the context variables that structlog had at that time."""
    kept: list[dict[str, Any]] = []

    class Log:
        def log(self, level: int, event: str, **said: Any) -> None:
            kept.append({**structlog.contextvars.get_contextvars(), "level": level, "event": event, **said})

    monkeypatch.setattr("storage.api.wsgi.middleware.log", Log())
    return kept


def test_a_request_leaves_one_line_with_the_id_that_came_with_it(lines: list[dict[str, Any]]) -> None:
    WholeClient().get("/no ☃?x=1", headers={"X-Request-ID": "abc", "X-Forwarded-For": "192.0.2.1"})
    (line,) = lines
    assert (line["event"], line["request"], line["code"]) == ("request_finished", "GET /no%20%E2%98%83?x=1", 404)
    assert (line["request_id"], line["ip"], line.get("peer")) == ("abc", "127.0.0.1", None)
    assert structlog.contextvars.get_contextvars() == {}


def test_with_a_trusted_proxy_the_line_has_both_addresses(lines: list[dict[str, Any]], settings: Any) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, trusted_proxies=(ip_network("127.0.0.0/8"),))
    WholeClient().get("/", headers={"X-Forwarded-For": "203.0.113.9, 192.0.2.1"})
    (line,) = lines
    assert (line["ip"], line["peer"]) == ("192.0.2.1", "127.0.0.1")


@pytest.mark.parametrize("given", ["", "x" * 129, 'a"b', "a b", "é", "a\tb"])
def test_an_id_that_is_long_or_may_do_harm_is_replaced(lines: list[dict[str, Any]], given: str) -> None:
    WholeClient().get("/", headers={"X-Request-ID": given})
    assert str(uuid.UUID(lines[0]["request_id"])) == lines[0]["request_id"]


@pytest.mark.parametrize("given", ["x" * 128, "Root=1-67891233-abcdef012345678912345678", "a.b_c-d:e/f+g"])
def test_an_id_of_a_tracing_proxy_is_kept(lines: list[dict[str, Any]], given: str) -> None:
    WholeClient().get("/", headers={"X-Request-ID": given})
    assert lines[0]["request_id"] == given


@pytest.mark.parametrize(
    ("trace", "taken"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-will-come", True),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", False),
        ("nonsense", False),
    ],
)
def test_the_id_of_a_trace_is_taken(lines: list[dict[str, Any]], trace: str, taken: bool) -> None:
    answer = WholeClient().get("/", headers={"traceparent": trace})
    assert (answer.headers["X-Request-ID"] == "4bf92f3577b34da6a3ce929d0e0e4736") is taken
    WholeClient().get("/", headers={"traceparent": trace, "X-Request-ID": "mine"})
    assert lines[1]["request_id"] == "mine"


@pytest.mark.parametrize("path", ["/files/nonsense", "/nowhere", "/download/nonsense", "/share/x/\xff"])
@pytest.mark.django_db
def test_the_answer_its_problem_and_the_log_have_one_id(lines: list[dict[str, Any]], path: str) -> None:
    answer = WholeClient().get(path)
    given = answer.headers["X-Request-ID"]
    assert str(uuid.UUID(given)) == given
    assert (answer.json()["request_id"], lines[0]["request_id"]) == (given, given)


def test_a_host_that_is_refused_is_one_short_line(lines: list[dict[str, Any]], settings: Any, capfd: Any) -> None:
    settings.ALLOWED_HOSTS = ["occ.example"]
    assert WholeClient().get("/", headers={"Host": "evil.example" * 50}).status_code == 400
    (line,) = lines
    assert (line["code"], line["refused_host"]) == (400, ("evil.example" * 50)[:100])
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_download_is_logged_when_it_has_ended_with_what_was_sent(
    cluster: ClusterUnderTest, lines: list[dict[str, Any]]
) -> None:
    data = content_of(3)
    path = f"/download/{cluster.upload(data).content.file_hash}"
    whole: Any = WholeClient().get(path)
    assert lines == []
    assert b"".join(whole.streaming_content) == data
    cut: Any = WholeClient().get(path)
    next(iter(cut.streaming_content))
    cut.close()
    assert [line["bytes"] for line in lines] == [len(data), 0], "what was taken, not what was about to be"
    assert lines[0]["request_id"] != lines[1]["request_id"]


def test_a_service_that_is_well_does_not_fill_the_log_with_saying_so(
    cluster: ClusterUnderTest, lines: list[dict[str, Any]]
) -> None:
    WholeClient().get("/health")
    WholeClient().get("/files")
    assert [line["level"] for line in lines] == [logging.DEBUG, logging.INFO]


def test_of_an_answer_to_head_no_bytes_are_sent(lines: list[dict[str, Any]]) -> None:
    WholeClient().head("/")
    WholeClient().get("/")
    assert (lines[0]["bytes"], lines[1]["bytes"] > 0) == (0, True)


def test_what_nobody_has_answered_is_logged_too(lines: list[dict[str, Any]]) -> None:
    def defect(_environ: Any, _start_response: Any) -> Any:
        raise KeyError("a defect")

    environ = RequestFactory().get("/x").environ
    with pytest.raises(KeyError):
        RequestLog(defect)(environ, lambda *_: lambda _: None)
    (line,) = lines
    assert (line["request"], line["code"], line["error"]) == ("GET /x", 500, "KeyError('a defect')")
    assert structlog.contextvars.get_contextvars() == {}
