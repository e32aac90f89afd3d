from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

from django.conf import settings
from django.db import connection, models, transaction

from storage.models.chunk import Chunk
from storage.models.content import Content
from storage.models.file import File
from storage.models.part import Part
from storage.models.statements.prepared import rows


class UploadQuerySet(models.QuerySet["Upload"]):
    def pin(self, wanted: Mapping[tuple[uuid.UUID, str], int], sizes: Mapping[str, int]) -> dict[str, int]:
        """Pin chunks before the volumes are asked for them; return chunk hash → row id.

        In the order of the hashes, the statement inserts rows for new chunks, and ends the condemnation of chunks that
        have rows. All batches lock chunks in the order of their hashes, so two batches cannot deadlock (RACES 6).
        Reclaim either sees the pins, or has ended its work on these chunks before.

        Args:
            wanted: (upload id, chunk hash) → the number of replicas that the upload wants of the chunk.
            sizes: chunk hash → size in bytes.
        """
        uploads, hashes, factors = zip(*((u, bytes.fromhex(h), f) for (u, h), f in wanted.items()), strict=True)
        pairs = rows(
            """
            WITH alive AS (
                -- Uploads before chunks, each in order: an upload that is being dropped is over or waits for us.
                SELECT id FROM storage_upload WHERE id = ANY(%(uploads)s::uuid[]) ORDER BY id FOR NO KEY UPDATE
            ), wanted AS (
                SELECT upload, hash, factor, size
                  FROM unnest(%(uploads)s::uuid[], %(hashes)s::bytea[], %(factors)s::int[], %(sizes)s::int[])
                       AS w (upload, hash, factor, size) JOIN alive ON alive.id = upload
            ), chunk AS (
                INSERT INTO storage_chunk (hash, size) SELECT DISTINCT hash, size FROM wanted ORDER BY hash
                ON CONFLICT (hash) DO UPDATE SET condemned_at = NULL
                RETURNING hash, id
            ), pin AS (
                INSERT INTO storage_pin (upload_id, chunk_id, factor)
                SELECT upload, chunk.id, factor FROM wanted JOIN chunk USING (hash)
                ON CONFLICT DO NOTHING
            )
            SELECT hash, id FROM chunk, set_config('synchronous_commit', 'off', true) AS lazily
            """,
            {
                "uploads": list(uploads),
                "hashes": list(hashes),
                "factors": list(factors),
                "sizes": [sizes[chunk_hash] for _, chunk_hash in wanted],
            },
        )
        return {chunk_hash.hex(): chunk_id for chunk_hash, chunk_id in pairs}

    def release(self, upload_ids: Iterable[uuid.UUID]) -> set[int]:
        """Delete uploads with their segments and pins; return the row ids of the chunks that were pinned."""
        ids = {"ids": sorted(upload_ids)}
        with transaction.atomic(savepoint=False):
            # A worker that pins chunks for an upload holds the lock of the upload's row. The worker's pins must be
            # visible before the next statement looks for pins.
            rows("SELECT id FROM storage_upload WHERE id = ANY(%(ids)s::uuid[]) ORDER BY id FOR UPDATE", ids)
            unpinned = rows(
                """
                WITH segment AS (
                    DELETE FROM storage_segment WHERE upload_id = ANY(%(ids)s::uuid[]) RETURNING job_id
                ), segment_job AS (
                    DELETE FROM storage_job WHERE id IN (SELECT job_id FROM segment)
                ), job AS (
                    UPDATE storage_job SET upload_id = NULL
                     WHERE upload_id = ANY(%(ids)s::uuid[]) AND id NOT IN (SELECT job_id FROM segment)
                ), upload AS (
                    DELETE FROM storage_upload WHERE id = ANY(%(ids)s::uuid[])
                )
                DELETE FROM storage_pin WHERE upload_id = ANY(%(ids)s::uuid[]) RETURNING chunk_id
                """,
                ids,
            )
            return {chunk_id for (chunk_id,) in unpinned}


class Upload(models.Model):
    """A body that has arrived, or is arriving. An upload owns its staged bytes and its pins until its ingest ends
    (RACES 1).

    The staged bytes are needed while the row exists; a staged file without a row is garbage.
    """

    class State(models.TextChoices):
        RECEIVING = "receiving"
        RESUMABLE = "resumable"  # The body arrives in several requests: see ``Resumable``.
        ACCEPTED = "accepted"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    state = models.CharField(max_length=16, choices=State, default=State.RECEIVING)
    content = models.ForeignKey(Content, models.PROTECT, null=True, related_name="uploads")
    file = models.ForeignKey(File, models.PROTECT, null=True, related_name="uploads")
    part = models.ForeignKey(Part, models.PROTECT, null=True, related_name="uploads")
    replication_factor = models.PositiveIntegerField()
    reserved = models.BigIntegerField(default=0, help_text="bytes that admission has promised on the nodes")
    piece_size = models.IntegerField(help_text="bytes that each piece checksum covers")
    piece_checksums = models.BinaryField(default=b"", help_text="CRC-32 of each piece, 4 bytes little-endian")
    created_at = models.DateTimeField(auto_now_add=True)
    heartbeat_at = models.DateTimeField(auto_now_add=True)

    objects = UploadQuerySet.as_manager()

    def __str__(self) -> str:
        return str(self.id)

    def beat(self) -> bool:
        """Record that the body still arrives; return False if the upload has been dropped."""
        with connection.cursor() as cursor:
            cursor.execute("UPDATE storage_upload SET heartbeat_at = clock_timestamp() WHERE id = %s", [self.pk])
            return bool(cursor.rowcount == 1)

    def release(self) -> set[int]:
        """Delete the row and its pins; return the row ids of the chunks that were pinned.

        The caller removes the staged file after the commit.
        """
        return type(self).objects.release([self.pk])

    def give_up(self, content: Content) -> set[int]:
        """Remove the file or the part that this upload was for, after the upload has been released.

        The file stays if the content is ready, or if another upload of the file may make it ready. A part has no other
        upload, so it goes. The caller holds the lock of the content's row, and condemns the chunks whose row ids are
        returned.
        """
        if self.part_id is not None:
            return Part.objects.remove([self.part_id])
        is_kept = content.state == Content.State.READY or content.uploads.filter(file=self.file_id).exists()
        if self.file_id is None or is_kept:
            return set()
        return set[int]().union(*(file.remove() for file in content.files.filter(pk=self.file_id)))

    def drop(self) -> None:
        """Give up the upload, and delete its row.

        Chunks that only this upload referred to are condemned, and reclaim frees their bytes.
        """
        with transaction.atomic():
            Chunk.objects.condemn_unreferenced(self.release())
