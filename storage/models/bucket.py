from __future__ import annotations

from functools import lru_cache
from typing import Literal

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from storage.conf import configuration
from storage.exceptions import NoSuchBucket
from storage.models.quota import Quota, Usage
from storage.models.statements.prepared import Columns, rows

LONGEST_NAME = 63

# The number of objects, and the bytes of all parts; ``bucket`` stands for the row id of a bucket.
USAGE = """
    SELECT coalesce(sum(amount) FILTER (WHERE what = 'objects'), 0)::bigint,
           coalesce(sum(amount) FILTER (WHERE what = 'parts'), 0)::bigint
      FROM storage_tally WHERE key = {bucket} AND what IN ('objects', 'parts')
"""
_USAGE = USAGE.format(bucket="%s")


class Bucket(models.Model):
    """A named set of one owner's objects. Names are unique in the installation, as in S3."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="buckets")
    name = models.CharField(max_length=LONGEST_NAME, unique=True, db_collation="C", editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    replication_factor = models.PositiveIntegerField(
        null=True, blank=True, help_text="replicas of new objects; empty: REPLICATION_FACTOR"
    )
    max_bytes = models.PositiveBigIntegerField(
        "bytes", null=True, blank=True, help_text="empty: as many as its owner may store"
    )
    max_objects = models.PositiveBigIntegerField(
        "objects", null=True, blank=True, help_text="empty: as many as its owner may store"
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def find(cls, name: str) -> Bucket | None:
        """The bucket of a name; None if there is none. Nearly every request at the S3 door calls this method."""
        return cls._read("name = %s", name)

    @property
    def factor(self) -> int:
        """The number of replicas that a new object of this bucket should have, unless its storage class wants fewer."""
        return self.replication_factor or configuration().replication_factor

    @property
    def quota(self) -> Quota | None:
        """The bucket's own quota, in addition to its owner's; None if the bucket has none."""
        if self.max_bytes is None and self.max_objects is None:
            return None
        return Quota(owner_id=self.owner_id, max_bytes=self.max_bytes, max_files=self.max_objects)

    @property
    def used(self) -> Usage:
        """The number of objects, and the bytes of all parts, those of unfinished multipart uploads included."""
        ((objects, size),) = rows(_USAGE, [self.pk])
        return Usage(objects, size)

    def lock(self) -> Bucket:
        """Keep the bucket from being deleted until the transaction ends, and return it as it is now.

        If the bucket has a quota, other transactions that call this method wait until this transaction ends: objects
        are checked against the quota one after the other.

        Raises:
            NoSuchBucket: the bucket has been deleted.
        """
        bucket = self.lock_if_there()
        if bucket is None:
            raise NoSuchBucket(f"no bucket {self.name}")
        return bucket

    def lock_if_there(self) -> Bucket | None:
        """Lock the bucket as ``lock`` does; return None if it has been deleted."""
        bucket = self._locked("FOR KEY SHARE")
        return bucket if bucket is None or bucket.quota is None else self._locked("FOR NO KEY UPDATE")

    def _locked(self, strength: Literal["FOR KEY SHARE", "FOR NO KEY UPDATE"]) -> Bucket | None:
        return self._read(f"id = %s {strength}", self.pk)

    @classmethod
    def _read(cls, condition: str, value: object) -> Bucket | None:
        columns = _columns()
        statement = f"SELECT {columns.of('b')} FROM storage_bucket b WHERE b.{condition}"  # noqa: S608  constants
        return next((columns.take(cls, iter(row)) for row in rows(statement, [value])), None)


@lru_cache(maxsize=1)
def _columns() -> Columns:
    return Columns(Bucket)
