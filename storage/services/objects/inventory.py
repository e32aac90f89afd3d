"""Buckets with what they hold, and objects with the health of their contents, for the doors that show files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User

from storage.models.bucket import USAGE
from storage.models.statements.prepared import rows
from storage.services.objects.buckets import own_bucket
from storage.services.objects.listing import list_objects

_BUCKETS = f"""
    SELECT b.name, b.created_at, b.replication_factor, b.max_objects, b.max_bytes, used.objects, used.bytes
      FROM (SELECT * FROM storage_bucket WHERE owner_id = %(owner)s AND name > %(after)s
             ORDER BY name LIMIT %(limit)s) AS b,
           LATERAL ({USAGE.format(bucket="b.id")}) AS used (objects, bytes)
     ORDER BY b.name
"""  # noqa: S608  only constants are put in
_ENTRIES = """
    SELECT o.id, o.key, o.size, o.etag, o.content_type, o.modified_at, p.parts, p.file_hash, p.chunks, p.retrievable,
           p.fewest, p.average, p.most, p.factor, p.health_at, p.health_epoch
      FROM storage_object o,
           LATERAL (SELECT count(*) AS parts, CASE WHEN count(*) = 1 THEN (array_agg(c.file_hash))[1] END AS file_hash,
                           sum(c.chunk_count)::bigint AS chunks, bool_and(c.retrievable) AS retrievable,
                           min(c.min_replication) AS fewest, max(c.max_replication) AS most,
                           round((sum(c.avg_replication * greatest(c.chunk_count, 1))
                                  / sum(greatest(c.chunk_count, 1)))::numeric, 3)::float8 AS average,
                           max(part.replication_factor) AS factor, min(c.health_at) AS health_at,
                           min(c.health_epoch) AS health_epoch
                      FROM storage_part part JOIN storage_content c ON c.id = part.content_id
                     WHERE part.object_id = o.id) AS p
     WHERE o.bucket_id = %(bucket)s AND o.key = ANY(%(keys)s::text[]) ORDER BY o.key
"""


@dataclass(frozen=True)
class Holdings:
    """A bucket, and what it holds.

    Attributes:
        replication_factor: the number of replicas of new objects; None for REPLICATION_FACTOR.
        max_objects: the most objects that the bucket may have; None if its owner's quota is its only limit.
        max_bytes: the most bytes; None as for ``max_objects``.
        objects: the number of its objects.
        bytes: the bytes of all its parts, those of unfinished multipart uploads included.
    """

    name: str
    created_at: datetime
    replication_factor: int | None
    max_objects: int | None
    max_bytes: int | None
    objects: int
    bytes: int


@dataclass(frozen=True)
class Entry:
    """An object with one health summary, made from the health summaries of its contents.

    Attributes:
        file_hash: SHA-256 of the object in hex; None if the object has several parts, because their hashes do not give
            the hash of the whole.
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
    """A page of the objects of a bucket, in the order of their keys.

    Attributes:
        entries: the objects.
        folders: the common prefixes of the objects that were rolled up, by key.
        total: the number of all objects of the bucket.
        last: the last entry of the page, a key or a common prefix, if more entries follow; otherwise None.
    """

    entries: Sequence[Entry]
    folders: Sequence[str]
    total: int
    last: str | None


def bucket_page(owner: User, *, limit: int, after: str = "") -> tuple[Sequence[Holdings], str | None]:
    """Read one page of the owner's buckets, by name.

    Args:
        owner: the owner.
        limit: the largest number of buckets.
        after: the name of the last bucket of the page before.

    Returns:
        The buckets, and the name of the last one if more follow, otherwise None.
    """
    found = [Holdings(*row) for row in rows(_BUCKETS, {"owner": owner.pk, "after": after, "limit": limit + 1})]
    return found[:limit], found[limit - 1].name if len(found) > limit else None


def page(owner: User, name: str, *, limit: int, prefix: str = "", delimiter: str = "", after: str = "") -> Page:
    """Read one page of the objects of the owner's bucket.

    Args:
        owner: the owner.
        name: the name of the bucket.
        limit: the largest number of objects and common prefixes together.
        prefix: the text with which all listed keys begin.
        delimiter: keys that have this text after the prefix are rolled up into common prefixes; "" for no delimiter.
        after: the last entry of the page before, a key or a common prefix.

    Raises:
        NoSuchBucket: the owner has no such bucket.
        InvalidKey: an argument cannot be written in UTF-8.
    """
    bucket = own_bucket(owner, name)
    listed = list_objects(bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
    found = rows(_ENTRIES, {"bucket": bucket.pk, "keys": [listed_object.key for listed_object in listed.objects]})
    return Page([_entry(row) for row in found], listed.prefixes, bucket.used.files, listed.last)


def _entry(row: tuple[Any, ...]) -> Entry:
    entry = Entry(*row)
    return entry if entry.file_hash is None else replace(entry, file_hash=bytes(row[7]).hex())
