from __future__ import annotations

from typing import Any

from django.db import connection


def execute_lazily(statement: str, parameters: Any) -> list[Any]:
    """Execute a statement whose commit does not wait for the disk; returns its rows.

    For what is done again after a crash of PostgreSQL: its log is written in order, so that whatever relies on this,
    and commits as usual, makes it durable too. Others see it at once, as any commit.

    Both go to PostgreSQL at once, which makes them one transaction.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL synchronous_commit TO off; {statement}", parameters)
        cursor.nextset()
        return list(cursor.fetchall())
