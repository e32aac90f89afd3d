from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction


@contextmanager
def lazily() -> Iterator[None]:
    """A transaction whose commit does not wait for the disk.

    For what is done again after a crash of PostgreSQL: its log is written in order, so that whatever relies on this,
    and commits as usual, makes it durable too. Others see it at once, as any commit.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit TO off")
        yield
