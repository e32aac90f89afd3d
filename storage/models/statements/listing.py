"""List the keys of a bucket in the order of their bytes. Keys with a common prefix may be rolled up into one entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.models.names import end_of_prefix
from storage.models.statements.prepared import rows

AFTER_KEY = "\x01"  # A key and this character make the smallest text that is greater than the key: no key has a NUL.

_KEYS = """
    SELECT key, size, etag, modified_at, storage_class, checksums, NULL FROM storage_object
     WHERE bucket_id = %(bucket)s AND key >= %(start)s AND {end} ORDER BY key LIMIT %(limit)s
"""
# Each step of the recursion finds one entry through the index. The next step begins after the entry's key, or after all
# keys that have the entry's common prefix. The end of the prefix is a condition inside the recursion: without this
# condition, the step after the last entry would read the rest of the bucket.
_ENTRIES = """
    WITH RECURSIVE entry AS (
        SELECT NULL::text COLLATE "C" AS key, NULL::bigint AS size, NULL::text AS etag,
               NULL::timestamptz AS modified_at, NULL::text AS storage_class, NULL::jsonb AS checksums,
               NULL::text COLLATE "C" AS rolled_up, %(start)s::text COLLATE "C" AS next, 0 AS place
         UNION ALL
        SELECT o.key, o.size, o.etag, o.modified_at, o.storage_class, o.checksums, r.rolled_up,
               CASE WHEN r.rolled_up IS NULL THEN o.key || chr(1)
                    ELSE left(r.rolled_up, -length(%(delimiter)s::text)) || %(end_of_delimiter)s::text END,
               entry.place + 1
          FROM entry,
               LATERAL (SELECT * FROM storage_object
                         WHERE bucket_id = %(bucket)s AND key >= entry.next AND {end} ORDER BY key LIMIT 1) AS o,
               LATERAL (SELECT strpos(substr(o.key, %(skipped)s::int + 1), %(delimiter)s::text)) AS d (place),
               LATERAL (SELECT CASE WHEN d.place > 0
                               THEN left(o.key, %(skipped)s::int + d.place - 1 + length(%(delimiter)s::text)) END
                       ) AS r (rolled_up)
         WHERE entry.place < %(limit)s::int
    )
    SELECT key, size, etag, modified_at, storage_class, checksums, rolled_up FROM entry WHERE place > 0 ORDER BY place
"""
_STATEMENTS = {
    (is_rolled_up, has_end): (_ENTRIES if is_rolled_up else _KEYS).format(end="key < %(stop)s" if has_end else "true")
    for is_rolled_up in (False, True)
    for has_end in (False, True)
}


@dataclass(frozen=True)
class Listed:
    """An object in a list."""

    key: str
    size: int
    etag: str
    modified_at: datetime
    storage_class: str
    checksums: dict[str, str]


def entries(bucket_id: int, prefix: str, delimiter: str, after: str, limit: int) -> Iterator[Listed | str]:
    """The objects of a bucket, and the common prefixes of the objects that are rolled up, in the order of their bytes.

    Args:
        bucket_id: the row id of the bucket.
        prefix: the text with which all listed keys begin.
        delimiter: keys that have this text after the prefix are rolled up into common prefixes, each of which ends with
            the first occurrence of this text; "" for no delimiter.
        after: only keys and common prefixes that are greater than this text are returned.
        limit: the largest number of entries.
    """
    stop = end_of_prefix(prefix)
    behind = end_of_prefix(delimiter) if delimiter else None
    start = _start(prefix, delimiter, behind, after)
    if start is None or limit <= 0:
        return
    parameters: dict[str, Any] = {
        "bucket": bucket_id,
        "start": start,
        "stop": stop,
        "limit": limit,
        "delimiter": delimiter,
        "end_of_delimiter": behind,
        "skipped": len(prefix),
    }
    statement = _STATEMENTS[behind is not None, stop is not None]
    for *columns, rolled_up in rows(statement, parameters):
        yield Listed(*columns) if rolled_up is None else rolled_up


def _start(prefix: str, delimiter: str, behind: str | None, after: str) -> str | None:
    """The smallest text that an entry after ``after`` may be; None if no such entry has the prefix."""
    if not after or after < prefix:
        return prefix
    if not after.startswith(prefix):
        return None
    place = after.find(delimiter, len(prefix)) if behind is not None else -1
    return after + AFTER_KEY if place < 0 else after[:place] + str(behind)
