"""The log: one JSON object a line on standard error, from our own code and from libraries.

Our own events go there by the shortest way. Those of libraries take that of ``logging``, which costs three times as
much, and come out the same.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from occsite.launch.output import STDERR, say


class Lines:
    """Writes what has been rendered, each line by one system call: those of several threads and processes stay whole.

    As with ``logging``, nothing that keeps a line from being written stops who has said it.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        say(f"{line}\n", STDERR)

    debug = info = warning = error = critical = msg


def configure(level: str) -> dict[str, Any]:
    """Send our own events on their way.

    Args:
        level: the name of the lowest level that is written.

    Returns:
        The configuration that ``logging`` needs for all others.
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
    }


def _unless_disabled(_logger: Any, method: str, event: EventDict) -> EventDict:
    """``logging.disable`` is for our own events, too: commands of the operator use it."""
    disabled = logging.root.manager.disable
    if disabled and logging.getLevelNamesMapping()[method.upper()] <= disabled:
        raise structlog.DropEvent
    return event
