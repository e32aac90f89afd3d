from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db import models
from django.db.models.functions import Now

from storage.models.bucket import Bucket
from storage.models.described import Described
from storage.models.statements.prepared import rows

_LOCK = """
    SELECT id FROM storage_object
     WHERE (bucket_id, key) IN (SELECT * FROM unnest(%s::bigint[], %s::text[]))
     ORDER BY bucket_id, key FOR UPDATE
"""


_SIZE = "SELECT size FROM storage_object WHERE bucket_id = %s AND key = %s"


@dataclass(frozen=True)
class Destination:
    """The bucket for which a body arrives, and the key if the body will be an object.

    Attributes:
        bucket: the bucket, as it was when the request began.
        key: the key under which the body will be an object; None for a part of a multipart upload.
    """

    bucket: Bucket
    key: str | None = None

    def cost(self) -> tuple[int, int]:
        """The number of objects that the body will add, and the bytes of the object that it will overwrite."""
        if self.key is None:
            return 0, 0
        for (size,) in rows(_SIZE, [self.bucket.pk, self.key]):
            return 0, size
        return 1, 0


class ObjectQuerySet(models.QuerySet["Object"]):
    def at(self, bucket: Bucket, key: str) -> ObjectQuerySet:
        """The object at a key: at most one."""
        return self.filter(bucket=bucket, key=key)

    def locked(self, places: Iterable[tuple[Bucket, str]]) -> dict[tuple[int, str], Object]:
        """Lock the objects at some places, in one order (RACES 47).

        Args:
            places: the bucket and the key of each place.

        Returns:
            (row id of the bucket, key) → the object at this place; places without an object are left out.
        """
        pairs = sorted({(bucket.pk, key) for bucket, key in places})
        ids = [object_id for (object_id,) in rows(_LOCK, [list(column) for column in zip(*pairs, strict=True)])]
        # The rows are read after they were locked: the transaction that had a row's lock before may have changed the
        # row.
        return {(found.bucket_id, found.key): found for found in self.filter(pk__in=ids)}


class Object(Described):
    """A key of a bucket, and the ordered list of contents that its bytes are: its parts, numbered from 1."""

    size = models.BigIntegerField(editable=False)
    etag = models.TextField(editable=False, help_text="MD5 in hex; after a multipart upload, also the number of parts")
    modified_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = ObjectQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["bucket", "key"], name="object_one_of_each_key"),)
        ordering = ("bucket", "key")
