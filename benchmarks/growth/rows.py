"""Lets PostgreSQL make the rows that uploads would leave. There are no bytes of these files on any volume."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import Max

from storage.models import Chunk, Cluster, Content, nobody

FILES_AT_ONCE = 20_000
TABLES = ("storage_chunk", "storage_manifestentry", "storage_content", "storage_file", "storage_job")
WORDS = (
    *("invoice", "photo", "report", "minutes", "letter", "draft", "contract", "scan"),
    *("backup", "sketch", "budget", "recipe", "travel", "music", "video"),
)
NAME = "format('%%s %%s %%s.pdf', (%(words)s::text[])[1 + i %% 15], (%(words)s::text[])[1 + i / 15 %% 15], i)"

# Hashes are made by SHA-256, so they are spread like real hashes. Ids continue from the last ids, so a manifest can
# name the ids of its chunks without a lookup.
CONTENTS = """
    INSERT INTO storage_content (id, file_hash, size, chunk_size, chunk_count, target, state, created_at, ready_at,
           retrievable, min_replication, avg_replication, max_replication, health_at, health_epoch)
    SELECT %(content)s + i, sha256(convert_to('content ' || i, 'UTF8')), %(chunks)s * 262144::bigint, 262144,
           %(chunks)s, 3, 'ready', now(), now(), true, 3, 3, 3, now(), %(epoch)s
      FROM generate_series(%(first)s, %(last)s) AS i
"""
FILES = f"""
    INSERT INTO storage_file (owner_id, content_id, name, size, replication_factor, created_at)
    SELECT %(owner)s, %(content)s + i, {NAME}, %(chunks)s * 262144::bigint, 3, now()
      FROM generate_series(%(first)s, %(last)s) AS i
"""
CHUNKS = """
    INSERT INTO storage_chunk (id, hash, size)
    SELECT %(chunk)s + i, sha256(convert_to('chunk ' || i, 'UTF8')), 262144
      FROM generate_series((%(first)s - 1) * %(chunks)s, %(last)s * %(chunks)s - 1) AS i
"""
ENTRIES = """
    INSERT INTO storage_manifestentry (content_id, position, chunk_id)
    SELECT %(content)s + 1 + i / %(chunks)s, i %% %(chunks)s, %(chunk)s + i
      FROM generate_series((%(first)s - 1) * %(chunks)s, %(last)s * %(chunks)s - 1) AS i
"""
JOBS = """
    INSERT INTO storage_job (id, kind, queue, priority, file_hash, size, state, done, total, waiting_for, attempts,
           fence, result, not_before, created_at, started_at, finished_at)
    SELECT gen_random_uuid(), 'ingest', 'ingest', 0, sha256(convert_to('content ' || i, 'UTF8')), 262144, 'succeeded',
           %(chunks)s, %(chunks)s, '', 1, 1, '{"chunks": 10}', at, at, at, at
      FROM generate_series(%(first)s, %(last)s) AS i,
           LATERAL (SELECT now() - interval '6 days' * (1 - i / %(files)s::float)) AS t (at)
"""
# These indexes are dropped and built at the end: with them, each new row would read and write a random page.
TAKEN_DOWN = """
    ALTER TABLE storage_chunk DROP CONSTRAINT storage_chunk_hash_key;
    DROP INDEX file_name_trigrams
"""
BUILT = (
    "ALTER TABLE storage_chunk ADD CONSTRAINT storage_chunk_hash_key UNIQUE (hash)",
    "CREATE INDEX file_name_trigrams ON storage_file USING gin (upper(name::text) gin_trgm_ops)",
    "SELECT setval(pg_get_serial_sequence('storage_content', 'id'), (SELECT max(id) FROM storage_content))",
    "SELECT setval(pg_get_serial_sequence('storage_chunk', 'id'), (SELECT max(id) FROM storage_chunk))",
    "VACUUM ANALYZE",
    "CHECKPOINT",
)


@dataclass(frozen=True)
class Size:
    """The number of rows of a table, its bytes, and the bytes of its indexes."""

    rows: int
    table: int
    indexes: int


def name_of(number: int) -> str:
    """Return the name of a file that is uploaded: it is like the names in the generated rows, but ends in ``.txt``."""
    return f"{WORDS[number % 15]} {WORDS[number // 15 % 15]} {number}.txt"


def fill(files: int, chunks: int) -> None:
    """Insert ``files`` healthy files with ``chunks`` chunks each, and their ingest jobs, spread over six days.

    The triggers run, and update the totals. The foreign keys of manifest entries are not checked.
    """
    values: dict[str, Any] = {"chunks": chunks, "files": files, "owner": nobody().pk, "words": list(WORDS)}
    values |= {"content": _last(Content), "chunk": _last(Chunk) + 1}
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0; SET synchronous_commit = off; SET maintenance_work_mem = '512MB'")
        cursor.execute(TAKEN_DOWN)
        for first in range(1, files + 1, FILES_AT_ONCE):
            values |= {"first": first, "last": min(files, first + FILES_AT_ONCE - 1)}
            values["epoch"] = Cluster.load().topology_epoch
            with transaction.atomic():
                for statement in (CONTENTS, FILES, CHUNKS, JOBS):
                    cursor.execute(statement, values)
                cursor.execute("SET LOCAL session_replication_role = replica")
                cursor.execute(ENTRIES, values)
            print(".", end="", flush=True, file=sys.stderr)
        for statement in BUILT:
            cursor.execute(statement)
        cursor.execute("RESET ALL")
    connection.close()
    print("", file=sys.stderr)


def _last(model: type[Chunk | Content]) -> int:
    return int(model.objects.aggregate(last=Max("pk"))["last"] or 0)


def sizes() -> dict[str, Size]:
    """Return table → its size."""
    found = {}
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(
                f"SELECT (SELECT count(*) FROM {table}), pg_table_size('{table}'), pg_indexes_size('{table}')"
            )
            found[table] = Size(*cursor.fetchone())
    return found
