"""A bucket's objects with the health of their contents, for the doors that show files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User

from storage.exceptions import NoSuchBucket
from storage.models import Bucket
from storage.models.names import end_of_prefix
from storage.models.statements.prepared import rows

_PAGE = """
    SELECT o.id, o.key, o.size, o.etag, o.content_type, o.modified_at, p.parts, p.file_hash, p.chunks, p.retrievable,
           p.fewest, p.average, p.most, p.factor, p.health_at, p.health_epoch
      FROM (SELECT * FROM storage_object
             WHERE bucket_id = %(bucket)s AND key >= %(prefix)s AND key > %(after)s {and_end}
             ORDER BY key LIMIT %(limit)s) AS o,
           LATERAL (SELECT count(*) AS parts, CASE WHEN count(*) = 1 THEN (array_agg(c.file_hash))[1] END AS file_hash,
                           sum(c.chunk_count)::bigint AS chunks, bool_and(c.retrievable) AS retrievable,
                           min(c.min_replication) AS fewest, max(c.max_replication) AS most,
                           round((sum(c.avg_replication * greatest(c.chunk_count, 1))
                                  / sum(greatest(c.chunk_count, 1)))::numeric, 3)::float8 AS average,
                           max(part.replication_factor) AS factor, min(c.health_at) AS health_at,
                           min(c.health_epoch) AS health_epoch
                      FROM storage_part part JOIN storage_content c ON c.id = part.content_id
                     WHERE part.object_id = o.id) AS p
     ORDER BY o.key
"""


@dataclass(frozen=True)
class Entry:
    """An object with one health summary, made from those of its contents.

    Attributes:
        file_hash: SHA-256 of the object in hex; None if it has several parts, because their hashes do not compose.
        health_at: the time of the oldest of these health summaries.
        health_epoch: the smallest topology epoch of these health summaries.
    """

    object_id: int
    key: str
    size: int
    etag: str
    content_type: str
    modified_at: datetime
    parts: int
    file_hash: str | None
    chunks: int
    retrievable: bool
    min_replication: int
    avg_replication: float
    max_replication: int
    replication_factor: int
    health_at: datetime | None
    health_epoch: int


@dataclass(frozen=True)
class Page:
    """Some objects of a bucket by key, the number of all its objects, and whether this page is the last one."""

    entries: list[Entry]
    total: int
    is_last: bool


def page(owner: User, name: str, *, limit: int, prefix: str = "", after: str = "") -> Page:
    """Read one page of the objects of the owner's bucket.

    Args:
        owner: the owner.
        name: the name of the bucket.
        limit: the largest number of objects.
        prefix: the text with which all listed keys begin.
        after: the key of the last object of the page before.

    Raises:
        NoSuchBucket: the owner has no such bucket.
    """
    bucket = Bucket.objects.filter(owner=owner, name=name).first()
    if bucket is None:
        raise NoSuchBucket(f"no bucket {name}")
    end = end_of_prefix(prefix)
    found = rows(
        _PAGE.format(and_end="" if end is None else "AND key < %(end)s"),
        {"bucket": bucket.pk, "prefix": prefix, "after": after, "end": end, "limit": limit + 1},
    )
    return Page([_entry(row) for row in found[:limit]], bucket.used.files, len(found) <= limit)


def _entry(row: tuple[Any, ...]) -> Entry:
    entry = Entry(*row)
    return entry if entry.file_hash is None else replace(entry, file_hash=bytes(row[7]).hex())
