"""Change the object at a place, which is a key of a bucket. Put, copy and complete share this code (RACES 47, 48).

The rows are locked in one order everywhere: the owner's quota, the bucket, a multipart upload, objects, contents, and
then parts, uploads, jobs and chunks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import transaction

from storage.exceptions import ClusterUnavailable, InvalidKey, InvalidRequest, NoSuchObject, PreconditionFailed
from storage.models import Bucket, Chunk, Content, Object, Part, Properties, Quota, Usage
from storage.models.statements.prepared import rows

P = ParamSpec("P")
T = TypeVar("T")

GONE = "the body was dropped, because it had waited for its place for too long; send it again"
LONGEST_KEY = 1024  # The most bytes that a key may have in UTF-8, as in S3.
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")

_INSERT = """
    INSERT INTO storage_object (size, etag, content_type, headers, metadata, tags, storage_class, checksums, bucket_id,
           key)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING id, modified_at
"""
_ATTACH = """
    UPDATE storage_part p SET object_id = %(object)s, multipart_id = NULL, number = w.number
      FROM unnest(%(parts)s::bigint[]) WITH ORDINALITY AS w (id, number)
     WHERE p.id = w.id AND p.object_id IS NULL RETURNING p.id
"""
_COPY = """
    INSERT INTO storage_part (bucket_id, content_id, number, size, etag, checksums, replication_factor)
    SELECT %(bucket)s, content_id, number, size, etag, checksums, %(factor)s
      FROM storage_part WHERE object_id = %(object)s RETURNING id, number
"""
_DESCRIBE = """
    UPDATE storage_object
       SET size = %s, etag = %s, content_type = %s, headers = %s, metadata = %s, tags = %s, storage_class = %s,
           checksums = %s, modified_at = statement_timestamp()
     WHERE id = %s RETURNING modified_at
"""


@dataclass(frozen=True)
class Condition:
    """What the object at a place must be before a change of the place.

    Attributes:
        absent: True if there must be no object.
        etag: the ETag that the object must have, without quotes; ``*`` for any object.
        unlike: an ETag that the object must not have, if there is an object.
    """

    absent: bool = False
    etag: str | None = None
    unlike: str | None = None

    def require(self, found: Object | None) -> None:
        """Check the condition against the object at the place, whose row is locked.

        Raises:
            PreconditionFailed: the object has the wrong ETag, or there is an object and must be none.
            NoSuchObject: there must be an object, and there is none.
        """
        if self.absent and found is not None:
            raise PreconditionFailed("an object is there already")
        if self.etag is not None and found is None:
            raise NoSuchObject("no object is there")
        if found is not None and (self.etag not in (None, "*", found.etag) or self.unlike == found.etag):
            raise PreconditionFailed("the object is in another state")


ALWAYS = Condition()


@dataclass(frozen=True)
class Draft:
    """The object that a place is about to get.

    Attributes:
        size: bytes.
        etag: the ETag without quotes.
        properties: what the client says about the object.
        checksums: algorithm → checksum in base64.
        parts: the parts in order.
        source: the object whose parts the new object gets copies of; None if ``parts`` has the parts.
    """

    size: int
    etag: str
    properties: Properties
    checksums: dict[str, str]
    parts: Sequence[Part] = field(default_factory=list)
    source: Object | None = None


class _Overtaken(Exception):
    """Another transaction has made an object at the place since the place was locked."""


def until_not_overtaken(change: Callable[P, T]) -> Callable[P, T]:
    """Run ``change`` in a transaction; repeat it if another transaction has made an object at the place first."""

    @wraps(change)
    def carried_out(*args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                with transaction.atomic():
                    return change(*args, **kwargs)
            except _Overtaken:
                continue

    return carried_out


class Place:
    """A key of a bucket, locked until the transaction ends.

    Attributes:
        bucket: the bucket as it is now.
        key: the key.
        found: the object at the key; None if there is none.
    """

    def __init__(self, bucket: Bucket, key: str, *, source: tuple[Bucket, str] | None = None) -> None:
        """
        Args:
            bucket: the bucket.
            key: the key.
            source: bucket and key of another object, which is locked too; None if there is none.

        Raises:
            NoSuchBucket: the bucket has been deleted.
        """
        require_key(key)
        self._quota = Quota.lock(bucket.owner_id)
        self.bucket = bucket.lock()
        self.key = key
        places = [(bucket, key)] if source is None else [(bucket, key), source]
        locked = Object.objects.locked(places)
        self.found = locked.get((bucket.pk, key))
        self.source = None if source is None else locked.get((source[0].pk, source[1]))

    def fill(self, draft: Draft, *, spare: Sequence[Part] = ()) -> Object:
        """Give the place its new object in one commit; the parts of the old object are deleted.

        Readers see either the old object or the new one (RACES 48).

        Args:
            draft: the new object.
            spare: further parts to delete.

        Raises:
            ClusterUnavailable: a part has been dropped, because it had been pending for too long.
            ByteQuotaExceeded, FileQuotaExceeded: the object does not fit into the quota of the owner or the bucket.
        """
        old = [*spare, *Part.objects.filter(object=self.found)] if self.found is not None else list(spare)
        placed = self.found or self._inserted(draft)
        copied = [] if draft.source is None else list(Part.objects.filter(object=draft.source))
        if old or copied:
            Content.objects.locked({part.content_id for part in (*old, *draft.parts, *copied)})
        # The new parts are inserted before the old parts are deleted: both may refer to the same content.
        new = [part.pk for part in draft.parts] if draft.source is None else self._twins(draft)
        chunk_ids = Part.objects.remove([part.pk for part in old])
        if len(rows(_ATTACH, {"object": placed.pk, "parts": new})) != len(new):
            raise ClusterUnavailable(GONE)
        if self.found is not None:
            ((placed.modified_at,),) = rows(_DESCRIBE, [*_values(draft), placed.pk])
        placed.describe(draft.properties)
        placed.size, placed.etag, placed.checksums = draft.size, draft.etag, draft.checksums
        # Quotas are checked here for the bytes of copied parts only. For the bytes of other parts, the quotas were
        # checked when the bodies were accepted.
        self._require_room(sum(part.size for part in copied) - sum(part.size for part in old))
        Chunk.objects.condemn_unreferenced(chunk_ids, factor=max((part.replication_factor for part in old), default=0))
        return placed

    def _inserted(self, draft: Draft) -> Object:
        """Insert a new object. The insertion may wait for another transaction, so contents are locked only later."""
        for object_id, modified_at in rows(_INSERT, [*_values(draft), self.bucket.pk, self.key]):
            return Object(pk=object_id, bucket=self.bucket, key=self.key, modified_at=modified_at)
        raise _Overtaken

    def _twins(self, draft: Draft) -> list[int]:
        """Insert copies of the parts of the source, whose row is locked; return their row ids in order."""
        assert draft.source is not None
        factor = draft.properties.factor_in(self.bucket)
        made = rows(_COPY, {"bucket": self.bucket.pk, "factor": factor, "object": draft.source.pk})
        return [part_id for part_id, _ in sorted(made, key=lambda row: row[1])]

    def _require_room(self, added: int) -> None:
        """Check the quotas after the change: the usage includes the new object and no longer the old one."""
        files = int(self.found is None)
        if not files and added <= 0:
            return
        added = max(0, added)
        if self._quota is not None:
            self._quota.require(Usage.of(self.bucket.owner_id).without(added, files=files), added, files=files)
        if self.bucket.quota is not None:
            self.bucket.quota.require(self.bucket.used.without(added, files=files), added, files=files)


def _values(draft: Draft) -> list[object]:
    """What ``draft`` says about an object, in the order of ``_INSERT`` and ``_DESCRIBE``."""
    said = draft.properties
    columns = [json.dumps(column) for column in (said.headers, said.metadata, said.tags)]
    return [draft.size, draft.etag, said.content_type, *columns, said.storage_class, json.dumps(draft.checksums)]


def require_key(key: str) -> None:
    """
    Raises:
        InvalidKey: the text cannot be a key.
    """
    if _NO_TEXT.search(key):
        raise InvalidKey("a key is text in UTF-8 without NUL")
    if not key or len(key.encode()) > LONGEST_KEY:
        raise InvalidKey(f"a key has 1 to {LONGEST_KEY} bytes in UTF-8")


def require_text(properties: Properties) -> None:
    """
    Raises:
        InvalidRequest: a value has characters that PostgreSQL cannot store.
    """
    texts = [properties.content_type, properties.storage_class]
    for pairs in (properties.headers, properties.metadata, properties.tags):
        texts += [*pairs, *pairs.values()]
    if any(map(_NO_TEXT.search, texts)):
        raise InvalidRequest("values are text in UTF-8 without NUL")
