"""The checks of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from occsite.doctor.findings import Finding, ok, problem, warning
from occsite.postgresql import sessions

OLDEST = 15  # The SQL of this service needs this version.
SCARCE, EXHAUSTED = 0.8, 0.95  # shares of all connections


def version_is_known() -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version'), current_setting('server_version_num')::int / 10000")
        version, major = cursor.fetchone()
    if major < OLDEST:
        yield problem(f"PostgreSQL {version} is too old", f"use PostgreSQL {OLDEST} or later")
    else:
        yield ok(f"PostgreSQL {version} answers")


def sessions_are_own() -> Iterator[Finding]:
    if flaw := sessions.flaw(connection.get_connection_params()):
        yield problem(flaw, sessions.REMEDY)
    else:
        yield ok("each connection is a session of its own")


def commits_are_durable() -> Iterator[Finding]:
    """The settings on which the promise of a 201 rests (invariant 1)."""
    names = ("fsync", "full_page_writes", "synchronous_commit")
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(names)])
        settings = dict(cursor.fetchall())
    off = [name for name in names if settings.get(name) == "off"]
    for name in off:
        yield problem(f"{name} is off: a crash may undo what was acknowledged", f"set {name} = on in PostgreSQL")
    if not off:
        yield ok(", ".join(f"{name} {settings.get(name)}" for name in names))


def connections_are_left() -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*), current_setting('max_connections')::int
                             - current_setting('superuser_reserved_connections')::int
              FROM pg_stat_activity WHERE backend_type = 'client backend'
            """
        )
        used, most = cursor.fetchone()
    words = f"{used} of {most} connections are in use"
    if used < SCARCE * most:
        yield ok(words)
    else:
        judge = problem if used >= EXHAUSTED * most else warning
        yield judge(words, "raise max_connections, or run fewer processes: each takes up to 16")


def migrations_are_applied() -> Iterator[Finding]:
    executor = MigrationExecutor(connection)
    loader = executor.loader
    lacking = [migration.name for migration, _ in executor.migration_plan(loader.graph.leaf_nodes())]
    unknown = [
        name
        for application, name in loader.applied_migrations
        if application == "storage" and (application, name) not in loader.disk_migrations
    ]
    if lacking:
        yield problem(
            f"migrations are not applied: {', '.join(lacking)}", "restart the service, or run `manage.py prepare`"
        )
    if unknown:
        yield problem(
            f"the database is of a later version: it has {', '.join(sorted(unknown))}",
            "use the version of OCC Storage that the service runs",
        )
    if not lacking and not unknown:
        yield ok("the database has the tables of this version")
