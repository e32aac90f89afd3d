"""The lines of the log: events of OCC Storage through structlog, and events of libraries through ``logging``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
SETUP = """
import logging, os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "occsite.settings")
import django; django.setup()
import structlog
ours, theirs = structlog.get_logger("ours"), logging.getLogger("theirs")
structlog.contextvars.bind_contextvars(request_id="abc")
"""


def logged(code: str, **environ: str) -> list[dict[str, Any]]:
    """Run ``code`` in a process with the service's logging. Return the lines of the process's log (standard error)."""
    argv = [sys.executable, "-c", SETUP + code]
    done = subprocess.run(argv, cwd=PROJECT, env=environ, capture_output=True, check=True)
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_our_events_and_those_of_libraries_have_the_same_fields() -> None:
    ours, theirs = logged("ours.warning('stopped', node='é'); theirs.warning('stopped')")
    assert (ours.pop("logger"), theirs.pop("logger"), ours.pop("node")) == ("ours", "theirs", "é")
    assert ours.pop("timestamp") <= theirs.pop("timestamp")
    assert ours == theirs == {"event": "stopped", "level": "warning", "request_id": "abc"}


def test_an_exception_is_there_with_its_traceback() -> None:
    (line,) = logged("try: 1 / 0\nexcept ZeroDivisionError as error: ours.exception('failed', exc_info=error)")
    assert (line["level"], line["exception"].splitlines()[-1]) == ("error", "ZeroDivisionError: division by zero")


def test_the_level_is_for_both() -> None:
    code = "for log in (ours, theirs): log.info('a'); log.warning('b')"
    assert [line["event"] for line in logged(code)] == ["a", "b"] * 2
    assert [line["event"] for line in logged(code, LOG_LEVEL="warning")] == ["b"] * 2
    disabled = "logging.disable(logging.WARNING)\nfor log in (ours, theirs): log.warning('a'); log.error('b')"
    assert [line["event"] for line in logged(disabled)] == ["b"] * 2


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    assert logged("os.dup2(os.open('/dev/full', os.O_WRONLY), 2); ours.error('lost')") == []


POST = """
from django.test import Client
for form in ({"password": "x" * 3_000_000}, {str(i): "" for i in range(5000)}):
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = "a" * 32
    answer = client.post("/admin/login/", form)
    assert answer.status_code == 400, answer
"""


def test_a_form_that_is_refused_is_a_warning_without_a_traceback() -> None:
    key = "a key of more than 32 characters, as it should be"
    lines = logged(POST, SECRET_KEY=key)
    kinds = ["django.security.RequestDataTooBig", "django.security.TooManyFieldsSent"]
    assert [line["logger"] for line in lines] == kinds
    assert {(line["level"], "exception" in line) for line in lines} == {("warning", False)}
    assert logged(POST, SECRET_KEY=key, LOG_LEVEL="error") == []


# -- share links -------------------------------------------------------------

TOKEN = "3dc0b0a4f6d84b3f9a1c2e5d7f8091a2.PIS3k-_xQ"
QUOTED = {  # The text without the filter → the text in the log.
    f"GET /share/{TOKEN}/big.bin": "GET /share/.../big.bin",
    f"Service Unavailable: /Share//{TOKEN}": "Service Unavailable: /Share//...",
    f"'GET /share/{TOKEN}?x=1 HTTP/9'": "'GET /share/...?x=1 HTTP/9'",
    "GET /b/k?X-Amz-Signature=12ab&x-id=1": "GET /b/k?X-Amz-Signature=...&x-id=1",
    "GET /b/k?Signature=1%2Bab%3D&Expires=1": "GET /b/k?Signature=...&Expires=1",
    "/?next=%2Fb%2Fk%3Fa%3Db%26Signature%3D12ab&x=1": "/?next=%2Fb%2Fk%3Fa%3Db%26Signature%3D...&x=1",
    f"/?next=%2Fshare%2F%33{TOKEN}%2fa&x=1": "/?next=%2Fshare%2F...%2fa&x=1",
    "/files/share/": "/files/share/",
}
QUOTE = """
from logging.config import dictConfig
from django.conf import settings
from gunicorn.config import Config
from gunicorn.glogging import Logger
gunicorn = Logger(Config())
dictConfig(settings.LOGGING)  # A worker does so when it loads the application.
for text in quoted:
    ours.error("failed", request=text); theirs.error("%s failed", text); gunicorn.warning(text)
    try: raise ValueError(text)
    except ValueError: theirs.exception("failed")
"""
ASK = f"""
from django.test import RequestFactory
from storage.api.wsgi.middleware import RequestLog
RequestLog(lambda *_: [])(RequestFactory().get("/%73hare/{TOKEN}/a b").environ, None).close()
"""


def test_no_line_has_the_token_of_a_share_link() -> None:
    lines = logged(f"quoted = {list(QUOTED)!r}\n{QUOTE}")
    for left, ours, theirs, refused, defect in zip(QUOTED.values(), *(lines[i::4] for i in range(4)), strict=True):
        assert (ours["request"], theirs["event"], refused["event"]) == (left, f"{left} failed", left)
        assert refused["logger"] == "gunicorn.error", "a line of gunicorn has the form of all others"
        first, *_, last = defect["exception"].splitlines()
        assert (first, last) == ("Traceback (most recent call last):", f"ValueError: {left}")


def test_the_line_of_a_request_has_no_token() -> None:
    (line,) = logged(ASK)
    assert line["request"] == "GET /share/.../a%20b"
