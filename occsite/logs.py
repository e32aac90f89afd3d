"""The log: one JSON object per line on standard error, from our own code and from libraries.

Our own events are written directly. Events of libraries pass through ``logging``, which costs three times as much, and
get the same form.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from occsite.launch.output import STDERR, say

RENDER = structlog.processors.JSONRenderer()
# Anybody who reads the signature of a presigned address of S3 can use the address until it expires.
# The parameter is ``X-Amz-Signature`` in version 4, and ``Signature`` in version 2.
SIGNATURE = re.compile(r"((?:\b|%26|%3f)(?:Signature|X-Amz-Security-Token)(?:=|%3d))[^&\s\"'\\]+", re.IGNORECASE)
# Anybody who reads the token of a share link can use the link. Text that quotes an address may have %2F in place of a
# slash.
TOKEN = re.compile(r"((?:/|%2f)share(?:/|%2f)+)(?:(?!%2f)[^/?&\s\"'\\])+", re.IGNORECASE)


class Lines:
    """Writes rendered lines, each by one system call, so that lines of several threads and processes stay whole.

    As with ``logging``, a line that cannot be written is dropped and raises nothing.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        say(f"{line}\n", STDERR)

    debug = info = warning = error = critical = msg


def configure(level: str, *reporters: Processor) -> dict[str, Any]:
    """Configure structlog for our own events.

    Args:
        level: the name of the lowest level that is written.
        reporters: processors that see our own events before they are rendered.

    Returns:
        The configuration of ``logging`` for the events of libraries.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    traceback = structlog.processors.format_exc_info
    structlog.configure(
        processors=[_unless_disabled, *shared, *reporters, traceback, _line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=Lines,
        cache_logger_on_first_use=True,
    )
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "processor": _line,
        "foreign_pre_chain": [*shared, traceback],
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": formatter},
        "filters": {"refusals": {"()": lambda: _as_warning}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["refusals"]}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Each request has a line of our own. Django would log refusals once more.
            "django.request": {"level": "ERROR"},
            # gunicorn gives its logger a handler of its own; this entry of LOGGING takes the handler away.
            "gunicorn.error": {"propagate": True},
        },
    }


def _as_warning(record: logging.LogRecord) -> bool:
    """Make a refusal a warning without a traceback. Django logs a form with too many fields, and the like, as an error.

    Returns:
        False if the line is below the lowest level that is written.
    """
    if record.name.startswith("django.security.") and record.levelno > logging.WARNING:
        record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
    return record.levelno >= logging.root.level


def _line(logger: Any, method: str, event: EventDict) -> str:
    """The line of an event. Secrets are masked, also in messages of libraries and in tracebacks."""
    return masked(str(RENDER(logger, method, event)))


def masked(text: str) -> str:
    """A text without the tokens of share links and the signatures of presigned addresses."""
    if "share" in text.lower():
        text = TOKEN.sub(r"\1...", text)
    return SIGNATURE.sub(r"\1...", text) if "signature" in text.lower() or "x-amz-s" in text.lower() else text


def _unless_disabled(_logger: Any, method: str, event: EventDict) -> EventDict:
    """Drop an event of a level that is switched off: commands of the operator call ``logging.disable``."""
    disabled = logging.root.manager.disable
    if disabled and logging.getLevelNamesMapping()[method.upper()] <= disabled:
        raise structlog.DropEvent
    return event
