"""Whether a connection to PostgreSQL is a session of its own, or shares sessions through a pooler such as pgbouncer.

With pooling by transactions or statements, two statements of one client may run in two sessions, and two clients may
meet in one session. In a shared session, a lock that one client holds does not keep another client out, prepared
statements vanish, and options are lost: reclaim, migrations and rebuilds would no longer exclude each other (RACES 40).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import psycopg

TRIES = 3  # A busy pooler may give a client the same session twice by chance.
REMEDY = "connect DATABASE_URL to PostgreSQL itself"


def flaw(parameters: Mapping[str, Any]) -> str:
    """The reason in words why this service cannot rely on its connections to PostgreSQL; empty if there is none.

    Args:
        parameters: the parameters of a connection, for psycopg.

    Raises:
        psycopg.OperationalError: PostgreSQL cannot be reached.
    """
    one = psycopg.connect(**parameters, autocommit=True)
    other = psycopg.connect(**parameters, autocommit=True)
    with one, other:
        for _ in range(TRIES):
            if _share_sessions(one, other):
                return "a pooler stands before PostgreSQL and gives one session to several clients"
            if _lock_is_granted_twice(one, other):
                return "a lock of one client does not keep another client out"
        if not _has_options(one, str(parameters.get("options", ""))):
            return "a pooler stands before PostgreSQL and drops the options of a connection"
    return ""


def _share_sessions(one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    """Tell whether both clients meet in one session, or one client changes sessions while the other client is busy."""
    before = _session(one)
    with other.transaction():
        theirs = _session(other)
        return before == theirs or before != _session(one)


def _lock_is_granted_twice(one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    key = secrets.randbits(62)
    one.execute("SELECT pg_advisory_lock_shared(%s)", [key])
    try:
        row = other.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()
        is_granted = bool(row and row[0])
        if is_granted:
            other.execute("SELECT pg_advisory_unlock(%s)", [key])
        return is_granted
    finally:
        one.execute("SELECT pg_advisory_unlock_shared(%s)", [key])


def _session(client: psycopg.Connection[Any]) -> object:
    row = client.execute("SELECT pg_backend_pid()").fetchone()
    return row and row[0]


def _has_options(client: psycopg.Connection[Any], options: str) -> bool:
    """Tell whether the settings in ``options`` (``-c name=value …``) have reached the session."""
    names = [word.strip().partition("=")[0] for word in options.split("-c ")[1:]]
    row = client.execute(
        "SELECT count(*) FROM pg_settings WHERE name = ANY(%s::text[]) AND source = 'client'", [names]
    ).fetchone()
    return row is not None and row[0] == len(set(names))
