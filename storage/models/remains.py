from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from storage.models.chunk import Chunk
from storage.models.clock import Clock
from storage.models.fields import DigestField
from storage.models.statements.prepared import rows


class RemainsQuerySet(models.QuerySet["Remains"]):
    def delete_expired(self, grace: float) -> None:
        """Delete the rows whose chunks may have been reclaimed."""
        self.filter(removed_at__lt=Now() - timedelta(seconds=grace)).delete()


class Remains(models.Model):
    """The manifest of a ready content that was removed with its last file, for as long as its chunks are spared.

    Attributes:
        chunk_ids: the row ids of the chunks in the order of the manifest. Row ids are not used twice: a chunk that was
            forgotten and came again is another row.
    """

    file_hash = DigestField(unique=True)
    size = models.BigIntegerField()
    chunk_size = models.IntegerField()
    chunk_ids = ArrayField(models.BigIntegerField())
    removed_at = models.DateTimeField(db_default=Clock(), db_index=True)

    objects = RemainsQuerySet.as_manager()

    def __str__(self) -> str:
        return self.file_hash

    @staticmethod
    def keep(content_ids: Sequence[int]) -> set[int]:
        """Take the manifests of contents away, and keep those of ready contents here; return the chunks' row ids.

        The caller holds the locks of the contents' rows, and removes the contents.
        """
        taken = rows(
            """
            WITH taken AS (
                DELETE FROM storage_manifestentry WHERE content_id = ANY(%(contents)s::bigint[])
                RETURNING content_id, position, chunk_id
            ), kept AS (
                INSERT INTO storage_remains (file_hash, size, chunk_size, chunk_ids, removed_at)
                SELECT file_hash, size, chunk_size,
                       coalesce((SELECT array_agg(chunk_id ORDER BY position) FROM taken
                                  WHERE content_id = c.id), '{}'), clock_timestamp()
                  FROM storage_content c WHERE id = ANY(%(contents)s::bigint[]) AND state = 'ready' ORDER BY file_hash
                ON CONFLICT (file_hash) DO UPDATE SET chunk_ids = EXCLUDED.chunk_ids,
                   chunk_size = EXCLUDED.chunk_size, removed_at = EXCLUDED.removed_at
            )
            SELECT DISTINCT chunk_id FROM taken
            """,
            {"contents": list(content_ids)},
        )
        return {chunk_id for (chunk_id,) in taken}

    def lock_chunks(self) -> list[tuple[str, int]] | None:
        """Lock the chunks; return the manifest, (hash, size in bytes) in order. None if a chunk has been forgotten."""
        locked = {chunk.pk: (chunk.hash, chunk.size) for chunk in Chunk.objects.locked(set(self.chunk_ids))}
        if len(locked) != len(set(self.chunk_ids)):
            return None
        return [locked[chunk_id] for chunk_id in self.chunk_ids]

    def take_back(self) -> None:
        """Take back the condemnation of the chunks. The caller has locked the chunks."""
        Chunk.objects.filter(pk__in=set(self.chunk_ids)).update(condemned_at=None)

    def content_fields(self) -> dict[str, Any]:
        """The fields of the content that left these remains."""
        return {
            "file_hash": self.file_hash,
            "size": self.size,
            "chunk_size": self.chunk_size,
            "chunk_count": len(self.chunk_ids),
        }
