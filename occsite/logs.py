"""The log: one JSON object a line on standard error, from our own code and from libraries.

Our own events are written directly. Events of libraries pass through ``logging``, which costs three times as much, and
get the same form.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from occsite.launch.output import STDERR, say


class Lines:
    """Writes rendered lines, each by one system call, so that lines of several threads and processes stay whole.

    As with ``logging``, a line that cannot be written is dropped and raises nothing.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        say(f"{line}\n", STDERR)

    debug = info = warning = error = critical = msg


def configure(level: str) -> dict[str, Any]:
    """Configure structlog for our own events.

    Args:
        level: the name of the lowest level that is written.

    Returns:
        The configuration of ``logging`` for the events of libraries.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
    ]
    render = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[_unless_disabled, *shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=Lines,
        cache_logger_on_first_use=True,
    )
    formatter = {"()": structlog.stdlib.ProcessorFormatter, "processor": render, "foreign_pre_chain": shared}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": level},
        # Each request has a line of our own, without the tokens of share links. Django would log refusals once more.
        "loggers": {"django.request": {"level": "ERROR"}},
    }


def _unless_disabled(_logger: Any, method: str, event: EventDict) -> EventDict:
    """Drop an event that ``logging.disable`` has switched off, as commands of the operator do."""
    disabled = logging.root.manager.disable
    if disabled and logging.getLevelNamesMapping()[method.upper()] <= disabled:
        raise structlog.DropEvent
    return event
