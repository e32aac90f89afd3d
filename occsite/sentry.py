"""Errors of our own events and of libraries, reported to Sentry, or to a service that speaks its protocol.

Nothing is reported, and the library is not even loaded, without SENTRY_DSN.
"""

from __future__ import annotations

import logging
from typing import Any

from structlog.typing import EventDict

from occsite import logs
from storage.conf import VERSION
from storage.exceptions import ConfigurationError

LEVELS = ("error", "critical")


def begin(dsn: str) -> None:
    """Report the errors of this process, and of its children, from now on. The library is loaded only when this
    function is called.

    A report has the event with its ids and the traceback: no body, no header field, no address of a client, and no
    variable of a function, because all of these may hold what belongs to the owners of files. Secrets are masked as in
    the log.

    Args:
        dsn: the address of the project at Sentry.

    Raises:
        ConfigurationError: the address is malformed.
    """
    import sentry_sdk
    from sentry_sdk.integrations.logging import LoggingIntegration
    from sentry_sdk.utils import BadDsn

    try:
        sentry_sdk.init(
            dsn=dsn,
            release=f"occ-storage@{VERSION}",
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[LoggingIntegration(level=None, event_level=logging.ERROR)],
            include_local_variables=False,
            send_default_pii=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            before_send=lambda event, _hint: _masked(event),
        )
    except BadDsn as error:
        raise ConfigurationError(f"SENTRY_DSN: {error}") from None


def report(_logger: Any, method: str, event: EventDict) -> EventDict:
    """Report an event of our own that is an error. This function is a processor of structlog, and changes no event."""
    if method not in LEVELS:
        return event
    import sentry_sdk
    from sentry_sdk.utils import event_from_exception

    found: Any = {}
    if isinstance(error := event.get("exc_info"), BaseException):
        found, _ = event_from_exception(error, client_options=sentry_sdk.get_client().options)
    fields = {name: value for name, value in event.items() if name not in ("event", "exc_info")}
    found.update(message=str(event["event"]), level="error", logger=event.get("logger"), extra=fields)
    sentry_sdk.capture_event(found)
    return event


def _masked(value: Any) -> Any:
    """A report, or a part of one, in which all texts are masked."""
    if isinstance(value, str):
        return logs.masked(value)
    if isinstance(value, dict):
        return {name: _masked(part) for name, part in value.items()}
    return [_masked(part) for part in value] if isinstance(value, list) else value
