"""The errors with which PostgreSQL says that it cannot serve. Errors because of a mistake in a statement are not
included.

The codes are SQLSTATEs (PostgreSQL's manual, appendix A).
"""

from __future__ import annotations

import time

from django.db import InterfaceError, InternalError, OperationalError

UNAVAILABLE = (OperationalError, InterfaceError, InternalError)
"""Django's exceptions for a PostgreSQL server that does not answer or refuses.

A read-only server raises ``InternalError``.
"""

READ_ONLY = "PostgreSQL is read-only, as after a failover: connect DATABASE_URL to the primary server"
DISK_FULL = "PostgreSQL's disk is full: make room on it"
NO_MEMORY = "PostgreSQL has no memory left: give it more, or lower its settings"
NO_CONNECTION = "PostgreSQL has no connection left: raise its max_connections"
BROKEN = "PostgreSQL's disk answers with errors: look into PostgreSQL's log, and replace the disk"
STARTING = "PostgreSQL is starting or stopping: it will be back by itself"
AWAY = "PostgreSQL does not answer: start it, or look into its log"

_WORDS = {
    "25006": READ_ONLY,
    "53100": DISK_FULL,
    "53200": NO_MEMORY,
    "53300": NO_CONNECTION,
    "57P01": STARTING,
    "57P02": STARTING,
    "57P03": STARTING,
    "58030": BROKEN,
}
# The error of a refused connection has a message but no SQLSTATE.
_MESSAGES = {
    "too many clients": NO_CONNECTION,
    "too many connections": NO_CONNECTION,
    "remaining connection slots": NO_CONNECTION,
    "No space left on device": DISK_FULL,
    "is starting up": STARTING,
    "is shutting down": STARTING,
    "in recovery mode": STARTING,
    "not yet accepting connections": STARTING,
}
_MET_BY_WRITERS_ALONE = (DISK_FULL, NO_MEMORY, BROKEN)
REMEMBERED_SECONDS = 10.0

_last: tuple[float, str] | None = None


def words(error: BaseException) -> str:
    """Say in plain words why PostgreSQL refused to serve.

    Args:
        error: an exception of a type in ``UNAVAILABLE``.
    """
    global _last
    state = getattr(error.__cause__ or error, "sqlstate", None)
    reason = _WORDS.get(str(state)) or next((text for part, text in _MESSAGES.items() if part in str(error)), AWAY)
    if reason in _MET_BY_WRITERS_ALONE:
        _last = (time.monotonic(), reason)
    return reason


def lately() -> str | None:
    """The reason why PostgreSQL refused a write of this process in the last ``REMEMBERED_SECONDS``, or None.

    Only a write finds out that a disk is full. A health check therefore learns from the writes of requests that the
    disk is full.
    """
    if _last is None or time.monotonic() - _last[0] > REMEMBERED_SECONDS:
        return None
    return _last[1]
