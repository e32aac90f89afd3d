from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from django.conf import settings
from django.db import connection, models, transaction

from storage.conf import configuration
from storage.models.chunk import Chunk, Pin
from storage.models.content import Content
from storage.models.lazily import lazily


class UploadQuerySet(models.QuerySet["Upload"]):
    def pin(self, wanted: Mapping[tuple[uuid.UUID, str], int], sizes: Mapping[str, int]) -> dict[str, int]:
        """Refer to chunks before the volumes are asked for them; chunk hash → row id.

        One transaction: once it has committed, reclaim leaves the chunks alone until their uploads are released.

        Args:
            wanted: (upload id, chunk hash) → how many replicas the upload wants of the chunk.
            sizes: chunk hash → size in bytes.
        """
        with lazily():
            # Uploads before chunks, each in order: an upload that is being dropped is over or waits for us.
            alive = self.filter(id__in={upload_id for upload_id, _ in wanted}).order_by("id")
            alive_ids = set(alive.select_for_update(no_key=True).values_list("id", flat=True))
            ids = Chunk.objects.reference(
                {chunk_hash: sizes[chunk_hash] for upload_id, chunk_hash in wanted if upload_id in alive_ids}
            )
            Pin.objects.bulk_create(
                [
                    Pin(upload_id=upload_id, chunk_id=ids[chunk_hash], factor=factor)
                    for (upload_id, chunk_hash), factor in wanted.items()
                    if upload_id in alive_ids
                ],
                ignore_conflicts=True,
            )
        return ids

    def release(self, upload_ids: Iterable[uuid.UUID]) -> set[int]:
        """Delete uploads with their segments and pins; the row ids of the chunks that were pinned."""
        ids = sorted(upload_ids)
        with transaction.atomic(), connection.cursor() as cursor:
            # A worker that is just pinning holds the row: its pins must be there before they are looked for.
            cursor.execute("SELECT FROM storage_upload WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [ids])
            cursor.execute("DELETE FROM storage_pin WHERE upload_id = ANY(%s) RETURNING chunk_id", [ids])
            chunk_ids = {row[0] for row in cursor.fetchall()}
            cursor.execute("DELETE FROM storage_segment WHERE upload_id = ANY(%s) RETURNING job_id", [ids])
            cursor.execute("DELETE FROM storage_job WHERE id = ANY(%s)", [[row[0] for row in cursor.fetchall()]])
            cursor.execute("UPDATE storage_job SET upload_id = NULL WHERE upload_id = ANY(%s)", [ids])
            cursor.execute("DELETE FROM storage_upload WHERE id = ANY(%s)", [ids])
        return chunk_ids


class Upload(models.Model):
    """A body on its way in. Owns its staged bytes and its pins until its ingest has ended (RACES 1).

    While the row exists the staged bytes are wanted; a staged file without a row is garbage.
    """

    class State(models.TextChoices):
        RECEIVING = "receiving"
        ACCEPTED = "accepted"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    state = models.CharField(max_length=16, choices=State, default=State.RECEIVING)
    content = models.ForeignKey(Content, models.PROTECT, null=True, related_name="uploads")
    replication_factor = models.PositiveIntegerField()
    reserved = models.BigIntegerField(default=0, help_text="bytes that admission has promised on the nodes")
    piece_size = models.IntegerField(help_text="bytes that each piece checksum covers")
    piece_checksums = models.BinaryField(default=b"", help_text="CRC-32 of each piece, 4 bytes little-endian")
    created_at = models.DateTimeField(auto_now_add=True)
    heartbeat_at = models.DateTimeField(auto_now_add=True)

    objects = UploadQuerySet.as_manager()

    def __str__(self) -> str:
        return str(self.id)

    @property
    def staged_path(self) -> Path:
        return configuration().staging_dir / str(self.id)

    def beat(self) -> bool:
        """Say that the body still arrives; false when the upload has been dropped."""
        with connection.cursor() as cursor:
            cursor.execute("UPDATE storage_upload SET heartbeat_at = clock_timestamp() WHERE id = %s", [self.pk])
            return bool(cursor.rowcount == 1)

    def release(self) -> set[int]:
        """Delete the row and its pins; the row ids of the chunks that were pinned.

        The staged file is removed by the caller once this has committed.
        """
        return type(self).objects.release([self.pk])

    def drop(self) -> None:
        """Give the upload up: chunks that only it referred to are condemned, and reclaim frees their bytes."""
        with transaction.atomic():
            Chunk.objects.condemn_unreferenced(self.release())

    def discard_staged(self) -> None:
        self.staged_path.unlink(missing_ok=True)
