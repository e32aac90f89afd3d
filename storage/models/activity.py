from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import F
from django.db.models.fields.tuple_lookups import Tuple, TupleLessThan
from django.db.models.functions import Now

from storage import acting
from storage.models.bucket import Bucket
from storage.models.clock import Clock
from storage.models.fields import DigestField
from storage.models.file import File

LONGEST = 255  # The key of an object may be longer: its beginning is enough.


class ActivityQuerySet(models.QuerySet["Activity"]):
    def newest_first(self, after: tuple[datetime, int] | None = None) -> Self:
        """The acts, the newest first: all acts, or only those after the act with the time and the row id ``after``."""
        rows = self.order_by("-at", "-id")
        return rows if after is None else rows.filter(TupleLessThan(Tuple(F("at"), F("id")), after))


class Activity(models.Model):
    """Something that a person or a program has done.

    The row is written in the transaction of the act, so an act that is rolled back leaves no row. An upload has no row
    while its file is there: the file's own row says who has stored it and when. When the file goes, a row with the time
    of the upload takes its place. An upload therefore needs no second write. Uploads of objects have no rows, and are
    not listed; deletions of objects have rows. No row says where a chunk lies (RACES 29).
    """

    class Action(models.TextChoices):
        """What was done."""

        UPLOAD = "upload"
        RENAME = "rename"
        DELETE = "delete"
        UNDO = "undo"
        REBALANCE = "rebalance"
        SHARE = "share"
        REVOKE_LINK = "revoke link"
        CREATE_KEY = "create key"
        ROTATE_KEY = "rotate key"
        REVOKE_KEY = "revoke key"
        ADD_NODE = "add node"
        RETIRE_NODE = "retire node"
        MAINTAIN = "maintain"
        CANCEL_JOB = "cancel job"
        RETRY_JOB = "retry job"

    at = models.DateTimeField(db_default=Clock())
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        related_name="+",
        db_index=False,
        help_text="whose thing it was done to; empty for the cluster, which only admins see",
    )
    actor = models.CharField(max_length=150, blank=True, help_text="the name of the user who did it")
    means = models.CharField(max_length=20, blank=True, help_text="the key, or the door")
    action = models.CharField(max_length=16, choices=Action)
    subject = models.CharField(max_length=LONGEST, help_text="a file's name, a key, a node, the kind of a job")
    file_hash = DigestField(null=True)  # type: ignore[misc]  # the plugin has one type for null and not null
    detail = models.CharField(max_length=255, blank=True, help_text="the new name, the number of copies")

    objects = ActivityQuerySet.as_manager()

    class Meta:
        indexes = (
            models.Index(fields=["at", "id"], name="activity_at"),
            models.Index(fields=["owner", "at", "id"], name="activity_of_owner"),
        )

    def __str__(self) -> str:
        return f"{self.action} {self.subject}"

    @classmethod
    def record(
        cls,
        action: Action,
        subject: str,
        *,
        owner_id: int | None = None,
        file_hash: str | None = None,
        detail: str = "",
    ) -> None:
        """Record what the present actor does. Work without an actor, as in a worker, is not recorded.

        Args:
            action: what is done.
            subject: the thing it is done to.
            owner_id: the row id of the user who owns the thing; None if it is the cluster's.
            file_hash: the content of the thing, if it is a file or an object.
            detail: what else a reader wants to know.
        """
        if (actor := acting.present()) is not None:
            cls.objects.create(
                owner_id=owner_id,
                actor=actor.name,
                means=actor.means,
                action=action,
                subject=subject[:LONGEST],
                file_hash=file_hash,
                detail=detail,
            )

    @classmethod
    def record_of(cls, action: Action, files: Iterable[File], *, detail: str = "") -> None:
        """Record what the present actor does to files. Contents and owners not read before are read now."""
        if (actor := acting.present()) is not None:
            Activity.objects.bulk_create(
                Activity(
                    owner_id=file.owner_id,
                    actor=actor.name,
                    means=actor.means,
                    action=action,
                    subject=file.name,
                    file_hash=file.content.file_hash,
                    detail=detail,
                )
                for file in files
            )

    @classmethod
    def record_of_objects(cls, action: Action, bucket: Bucket, keys: Iterable[str]) -> None:
        """Record what the present actor does to objects of a bucket."""
        if (actor := acting.present()) is not None:
            Activity.objects.bulk_create(
                Activity(
                    owner_id=bucket.owner_id,
                    actor=actor.name,
                    means=actor.means,
                    action=action,
                    subject=f"{bucket.name}/{key}"[:LONGEST],
                )
                for key in keys
            )

    @classmethod
    def outlive(cls, files: Iterable[File]) -> None:
        """Write acts for the uploads of ready files whose rows are deleted now."""
        Activity.objects.bulk_create(
            Activity(
                at=file.created_at,
                owner_id=file.owner_id,
                actor=file.owner.username,
                action=cls.Action.UPLOAD,
                subject=file.name,
                file_hash=file.content.file_hash,
            )
            for file in files
            if file.content.state == file.content.State.READY
        )

    @classmethod
    def resume(cls, files: Iterable[File]) -> None:
        """Delete what ``outlive`` has written: the rows of these files are there again, and show the uploads."""
        for file in files:
            cls.objects.filter(
                owner_id=file.owner_id,
                at=file.created_at,
                action=cls.Action.UPLOAD,
                subject=file.name,
                file_hash=file.content.file_hash,
            ).delete()

    @classmethod
    def forget(cls, age: timedelta) -> None:
        """Delete acts older than ``age``. ``Now()`` is constant in the statement, so PostgreSQL can use the index."""
        cls.objects.filter(at__lt=Now() - age).delete()
