"""A copy of the database that can be put back, as an operator puts back a backup."""

from __future__ import annotations

import time

from django.db import connection, transaction

from storage.cluster import generations, topology


class DatabaseCopy:
    """The rows and sequences of all tables of the store at the moment when this object was made."""

    def __init__(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'storage\\_%' ORDER BY relname"
            )
            self.tables: dict[str, bytes] = {}
            for (table,) in cursor.fetchall():
                with cursor.copy(f"COPY {table} TO STDOUT (FORMAT binary)") as copy:
                    self.tables[table] = b"".join(bytes(part) for part in copy)
            cursor.execute("SELECT sequencename, last_value FROM pg_sequences WHERE sequencename LIKE 'storage\\_%'")
            self.sequences: dict[str, int | None] = dict(cursor.fetchall())

    def put_back(self) -> None:
        """Replace the contents of the database by this copy. This process also drops its caches."""
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute(f"TRUNCATE {', '.join(self.tables)}")
            for table, data in self.tables.items():
                with cursor.copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy:
                    copy.write(data)
            for sequence, value in self.sequences.items():
                cursor.execute("SELECT setval(%s, %s, %s)", [sequence, value or 1, value is not None])
        topology.forget()
        generations._good_until = time.monotonic()
