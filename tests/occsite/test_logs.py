"""The lines of the log: our events through structlog, and those of libraries through ``logging``."""

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
    """Run ``code`` in a process with our logging. Return the lines of its log from standard error."""
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
