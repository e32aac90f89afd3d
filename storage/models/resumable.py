from __future__ import annotations

import uuid
from datetime import timedelta

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q

from storage.models.chunk import Chunk
from storage.models.clock import Clock
from storage.models.job import Job
from storage.models.statements.prepared import rows
from storage.models.upload import Upload


class ResumableQuerySet(models.QuerySet["Resumable"]):
    def of(self, owner_id: int) -> ResumableQuerySet:
        """The resumable uploads of an owner that have not expired."""
        return self.filter(owner_id=owner_id, expires_at__gt=Clock())

    def arriving(self, owner_id: int) -> ResumableQuerySet:
        """The owner's uploads that still lack bytes, the newest first. Parts of other uploads are left out."""
        return self.of(owner_id).filter(job=None, is_partial=False).order_by("-created_at", "-id")

    def expired(self) -> ResumableQuerySet:
        """The resumable uploads that have expired, without those that have arrived completely and that their jobs still
        store.
        """
        over = Q(job=None) | Q(job__state__in=Job.TERMINAL)
        return self.filter(over, expires_at__lte=Clock())

    def take_over(self, owner_id: int, upload_id: uuid.UUID, lifetime: timedelta) -> Resumable | None:
        """Make the caller the only writer of an upload. An earlier writer notices at its next write that it may not
        write any more (RACES 41).

        Args:
            owner_id: the owner of the upload.
            upload_id: the upload.
            lifetime: how long the upload is kept from now on.

        Returns:
            The upload, with the token of its new writer. An upload that has arrived completely gets no new writer. None
            if the owner has no such upload.
        """
        mine = self.of(owner_id).select_related("job").filter(pk=upload_id)
        token = uuid.uuid4()
        mine.filter(job=None).update(writer=token, expires_at=Clock() + lifetime)
        upload = mine.first()
        if upload is not None:
            upload.writer = token  # If another request has become the writer since, this request writes nothing.
        return upload

    def locked(self, upload_ids: list[uuid.UUID]) -> list[Resumable]:
        """Lock these rows in the order of their ids. Callers lock contents, uploads and jobs only later (RACES 41)."""
        return list(self.filter(pk__in=upload_ids).order_by("pk").select_for_update(of=("self",)))


class Resumable(models.Model):
    """A body that arrives in several requests, with all that the next of these requests needs to know.

    While the bytes of the body are staged, an ``Upload`` with the same id owns them. The row stays until it expires, so
    that a client can ask how its upload has ended.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    name = models.TextField(null=True, help_text="the file's name; null if the client gave none")  # noqa: DJ001  null is "no name"
    metadata = models.TextField(blank=True, help_text="Upload-Metadata, as the client sent it")
    length = models.BigIntegerField(null=True, help_text="bytes of the whole body; null if not known yet")
    offset = models.BigIntegerField(default=0, help_text="bytes that are durable in staging")
    checksums = models.BinaryField(default=b"", help_text="CRC-32 of each whole piece after the last segment")
    checksum = models.BigIntegerField(default=0, help_text="CRC-32 of the piece that has begun to arrive")
    segments = models.IntegerField(default=0, help_text="segments that were cut off")
    writer = models.UUIDField(default=uuid.uuid4, help_text="the token of the request that may write")
    is_partial = models.BooleanField(default=False, help_text="whether it becomes a part of another upload")
    parts = models.JSONField(null=True, help_text="ids of the uploads that it is joined from")
    job = models.ForeignKey(Job, models.SET_NULL, null=True, related_name="+", help_text="stores what has arrived")
    created_at = models.DateTimeField(db_default=Clock())
    expires_at = models.DateTimeField(db_index=True)

    objects = ResumableQuerySet.as_manager()

    def __str__(self) -> str:
        return str(self.id)

    @property
    def is_complete(self) -> bool:
        """True if all bytes have arrived. The bytes of an upload that is joined from parts arrive when a worker copies
        them.
        """
        return self.offset == self.length

    def has_writer(self) -> bool:
        """True if the request with this row's token may still write."""
        query = "SELECT 1 FROM storage_resumable WHERE id = %s::uuid AND writer = %s::uuid"
        return bool(rows(query, [self.pk, self.writer]))

    @transaction.atomic
    def drop(self) -> bool:
        """Delete the row and, unless the bytes have become a file, all that the upload owns.

        The caller has locked the row.

        Returns:
            True if the caller has to remove the staged bytes after the commit.
        """
        upload_id, job_id = self.pk, self.job_id
        self.delete()
        if not Upload.objects.select_for_update().filter(pk=upload_id, content=None).exists():
            return False
        if job_id is not None:
            Job.cancel([job_id])
        Chunk.objects.condemn_unreferenced(Upload.objects.release([upload_id]))
        return True
