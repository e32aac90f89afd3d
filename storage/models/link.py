from __future__ import annotations

import uuid
from datetime import timedelta

from django.db import models
from django.db.models.functions import Now

from storage.models.clock import Clock
from storage.models.file import File

EXPIRED_KEPT = timedelta(hours=1)


class LinkQuerySet(models.QuerySet["Link"]):
    def good(self) -> LinkQuerySet:
        """The links that open their file now, by PostgreSQL's clock."""
        return self.filter(expires_at__gt=Clock())

    def delete_expired(self) -> None:
        """Delete the links that expired a while ago. ``EXPIRED_KEPT`` allows for a clock that is set back a little."""
        self.filter(expires_at__lt=Now() - EXPIRED_KEPT).delete()


class Link(models.Model):
    """A share link: for a time, whoever has its address may download one file without a key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    file = models.ForeignKey(File, models.CASCADE, related_name="links")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField()

    objects = LinkQuerySet.as_manager()

    class Meta:
        ordering = ("created_at", "id")
        indexes = (models.Index(fields=["expires_at"], name="link_expires"),)

    def __str__(self) -> str:
        return str(self.id)
