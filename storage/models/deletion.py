from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from storage.models.clock import Clock
from storage.models.fields import DigestField

if TYPE_CHECKING:
    from storage.models.file import File


class DeletionQuerySet(models.QuerySet["Deletion"]):
    def delete_expired(self, grace: float) -> None:
        """Delete the rows that nobody can undo any more."""
        self.filter(deleted_at__lt=Now() - timedelta(seconds=grace)).delete()


class Deletion(models.Model):
    """Files of one owner and content that were deleted together. For a time, their owner can undo this (RACES 52).

    Attributes:
        files: the row id, name, replication factor and time of each file.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    file_hash = DigestField()
    files = models.JSONField()
    deleted_at = models.DateTimeField(db_default=Clock(), db_index=True)

    objects = DeletionQuerySet.as_manager()

    def __str__(self) -> str:
        return str(self.id)

    @classmethod
    def record(cls, files: Sequence[File]) -> Deletion:
        """Record that files are deleted. All files have one owner and one content."""
        described = [
            {
                "id": file.pk,
                "name": file.name,
                "factor": file.replication_factor,
                "created_at": file.created_at.isoformat(),
            }
            for file in files
        ]
        return cls.objects.create(owner_id=files[0].owner_id, file_hash=files[0].content.file_hash, files=described)
