from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import timedelta

from django.db import models
from django.db.models.functions import Now

from storage.models.bucket import Bucket
from storage.models.clock import Clock
from storage.models.described import Described


class MultipartQuerySet(models.QuerySet["Multipart"]):
    def open_in(self, bucket: Bucket) -> MultipartQuerySet:
        """The multipart uploads of a bucket that are neither completed nor expired."""
        return self.filter(bucket=bucket, completed__isnull=True, expires_at__gt=Clock())

    def locked(self, upload_ids: Iterable[uuid.UUID]) -> list[Multipart]:
        """Lock the rows in the order of their ids, and return those that still exist (RACES 47)."""
        return list(self.filter(pk__in=list(upload_ids)).order_by("pk").select_for_update(of=("self",)))


class Multipart(Described):
    """A multipart upload: parts that arrive by themselves, and become one object when the upload is completed.

    The row of a completed upload stays until it expires, so that a client that did not receive the answer can get it
    again.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    initiated_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_index=True)
    completed = models.JSONField(null=True, help_text="what the client was told about the object")

    objects = MultipartQuerySet.as_manager()

    class Meta:
        indexes = (models.Index(fields=["bucket", "key", "id"], name="multipart_by_key"),)

    @property
    def upload_id(self) -> str:
        """The id as clients see it: 32 hex digits."""
        return self.pk.hex

    def put_off(self, lifetime: timedelta) -> None:
        """Let the upload expire ``lifetime`` from now, unless this method is called again before."""
        Multipart.objects.filter(pk=self.pk).update(expires_at=Clock() + lifetime)
