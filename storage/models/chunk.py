from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from django.db import connection, models, transaction
from django.db.models.functions import Now

from storage.models.fields import DigestField
from storage.models.statements import prepared


@dataclass(frozen=True)
class Wanted:
    """A chunk, its size in bytes, and the number of replicas that it should have: 0 if nothing refers to the chunk."""

    chunk_hash: str
    size: int
    target: int


@dataclass(frozen=True)
class Unsettled:
    """The result of ``ChunkQuerySet.unsettled``.

    Attributes:
        chunks: the number of all chunks on record, whether settled or not.
        digests: the SHA-256 digests of the unsettled chunks, 32 bytes each, concatenated. A digest may occur more than
            once.
    """

    chunks: int
    digests: bytes


# Queued and running jobs are selected separately, because each of these two states has an index of its own.
UNSETTLED = """
    WITH job AS (
        SELECT kind, subject, file_hash FROM storage_job WHERE state = 'queued' AND queue = 'maintenance'
         UNION ALL
        SELECT kind, subject, file_hash FROM storage_job WHERE state = 'running' AND queue = 'maintenance'
    ), content AS (
        SELECT content_id AS id FROM storage_upload
         UNION
        SELECT c.id FROM job JOIN storage_content c ON c.file_hash = job.file_hash
    ), unsettled AS (
        SELECT hash FROM storage_chunk WHERE condemned_at IS NOT NULL
         UNION ALL
        SELECT c.hash FROM storage_pin p JOIN storage_chunk c ON c.id = p.chunk_id
         UNION ALL
        SELECT c.hash FROM content
          JOIN storage_manifestentry e ON e.content_id = content.id JOIN storage_chunk c ON c.id = e.chunk_id
         UNION ALL
        SELECT decode(subject, 'hex') FROM job WHERE kind = 'repair' AND subject ~ '^[0-9a-f]{64}$'
    )
    SELECT (SELECT sum(amount) FROM storage_tally WHERE what = 'chunks')::bigint,
           (SELECT string_agg(hash, ''::bytea) FROM unsettled)
"""


class ChunkQuerySet(models.QuerySet["Chunk"]):
    def locked(self, chunk_ids: Iterable[int]) -> list[Chunk]:
        """Lock the rows in the order of their hashes, and return them."""
        return list(self.filter(id__in=list(chunk_ids)).order_by("hash").select_for_update())

    def condemn_unreferenced(self, chunk_ids: Iterable[int], *, factor: int = 0) -> None:
        """Condemn the chunks that no manifest and no pin refers to: their grace period begins now.

        Args:
            chunk_ids: the row ids of the chunks that may be condemned.
            factor: the number of replicas that the chunks should have had until now; 0 if it is not known.
        """
        in_order = self.filter(id__in=list(chunk_ids)).order_by("hash").select_for_update()
        ids = list(in_order.values_list("id", flat=True))
        if not ids:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE storage_chunk c SET condemned_at = clock_timestamp(), condemned_factor = %s
                 WHERE c.id = ANY(%s) AND c.condemned_at IS NULL
                   AND NOT EXISTS (SELECT FROM storage_manifestentry e WHERE e.chunk_id = c.id)
                   AND NOT EXISTS (SELECT FROM storage_pin p WHERE p.chunk_id = c.id)
                """,
                [factor, ids],
            )

    def condemned_by_factor(self) -> dict[int, int]:
        """Target at the time of the condemnation → number of condemned chunks. Target 0 means: not known."""
        condemned = self.filter(condemned_at__isnull=False).values_list("condemned_factor")
        return dict(condemned.annotate(models.Count("id")))

    def restart_grace(self, ahead: timedelta) -> None:
        """Begin the grace period again for chunks whose condemnation lies in the future: the clock was set back since
        then.

        Args:
            ahead: a time at most this far in the future does not show that the clock was set back.
        """
        # Now() is constant during the statement. PostgreSQL cannot use the index for a time that advances, like
        # Clock().
        with transaction.atomic():
            later = self.filter(condemned_at__gt=Now() + ahead).order_by("hash").select_for_update(skip_locked=True)
            self.filter(pk__in=list(later.values_list("pk", flat=True))).update(condemned_at=Now())

    def keep_orphans(self, sizes: Mapping[str, int]) -> int:
        """Insert rows for chunks that have copies but no row. The rows are not condemned, so the copies stay.

        Args:
            sizes: chunk hash → size in bytes of the copies found.

        Returns:
            The number of new rows.
        """
        return self._record_orphans(sizes, "NULL")

    def kept(self, prefix: str) -> models.QuerySet[Chunk]:
        """The chunks that ``keep_orphans`` kept and nothing refers to yet, with hashes that begin with ``prefix``."""
        first, last = (prefix.ljust(64, digit) for digit in "0f")
        return self.filter(hash__range=(first, last), condemned_at=None, entries=None, pins=None)

    @transaction.atomic
    def condemn_kept(self, prefix: str) -> None:
        """Condemn the chunks that ``kept`` finds for this prefix, so that they are reclaimed."""
        self.condemn_unreferenced(self.kept(prefix).values_list("id", flat=True))

    def condemn_orphans(self, sizes: Mapping[str, int]) -> int:
        """Insert condemned rows for chunks that have copies but no row.

        From now on these rows can be locked, and their grace period begins (RACES 11).

        Args:
            sizes: chunk hash → size in bytes of the copies found.

        Returns:
            The number of new rows.
        """
        return self._record_orphans(sizes, "clock_timestamp()")

    def _record_orphans(self, sizes: Mapping[str, int], condemned_at: Literal["NULL", "clock_timestamp()"]) -> int:
        hashes = sorted(sizes)
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                INSERT INTO storage_chunk (hash, size, condemned_at)
                SELECT hash, size, {condemned_at} FROM unnest(%s::bytea[], %s::int[]) AS found (hash, size)
                 ORDER BY hash ON CONFLICT (hash) DO NOTHING
                """,  # noqa: S608  condemned_at is one of two constants
                [[bytes.fromhex(h) for h in hashes], [sizes[h] for h in hashes]],
            )
            return int(cursor.rowcount)

    def wanted(self, prefix: str) -> Iterator[Wanted]:
        """All chunks whose hashes begin with the hex digits ``prefix``, with their targets as in ``targets``."""
        first, last = (prefix.ljust(64, digit) for digit in "0f")
        rows = list(self.filter(hash__range=(first, last)).values_list("id", "hash", "size"))
        targets = self.targets([chunk_id for chunk_id, _, _ in rows])
        return (Wanted(chunk_hash, size, targets[chunk_id]) for chunk_id, chunk_hash, size in rows)

    def settled_among(self, chunk_hashes: Iterable[str]) -> Iterator[Wanted]:
        """The needed chunks among ``chunk_hashes`` that no upload pins: all their copies should be there."""
        pinned = Pin.objects.filter(chunk=models.OuterRef("pk"))
        chunks = self.filter(~models.Exists(pinned), hash__in=list(chunk_hashes))
        rows = list(chunks.values_list("id", "hash", "size"))
        targets = self.targets([chunk_id for chunk_id, _, _ in rows])
        return (Wanted(chunk_hash, size, targets[chunk_id]) for chunk_id, chunk_hash, size in rows if targets[chunk_id])

    def digests(self, ids: range) -> bytes:
        """The SHA-256 digests of all chunks whose row ids are in ``ids``, 32 bytes each, concatenated in any order.

        PostgreSQL concatenates the digests, because fetching ten million rows one by one would take a minute.
        """
        statement = "SELECT string_agg(hash, ''::bytea) FROM storage_chunk WHERE id >= %s::bigint AND id < %s::bigint"
        ((digests,),) = prepared.rows(statement, [ids.start, ids.stop])
        return bytes(digests or b"")

    def last_id(self) -> int:
        """The largest row id of a chunk; 0 if there are no chunks."""
        return int(self.aggregate(last=models.Max("pk"))["last"] or 0)

    def unsettled(self) -> Unsettled:
        """The chunks that may rightly have fewer copies than their target now, and the number of all chunks.

        A chunk is unsettled if it is condemned or pinned, or if a job is open for the chunk or for a content that has
        it, or if such a content is being uploaded again, perhaps with a larger factor. One snapshot of the database
        gives all figures.
        """
        ((chunks, digests),) = prepared.rows(UNSETTLED, [])
        return Unsettled(int(chunks or 0), bytes(digests or b""))

    def targets(
        self, chunk_ids: Iterable[int], *, without_files: Iterable[int] = (), without_parts: Iterable[int] = ()
    ) -> dict[int, int]:
        """The number of replicas that each chunk should have: the largest factor of its references and its pins.

        The references of a chunk are those of its contents: files, and parts of objects.

        A chunk that nothing refers to has target 0.

        Args:
            chunk_ids: row ids.
            without_files: row ids of files whose factors do not count.
            without_parts: row ids of parts whose factors do not count.
        """
        ids = list(chunk_ids)
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT id, max(factor) FROM (
                    SELECT e.chunk_id AS id, r.factor
                      FROM storage_manifestentry e JOIN storage_reference r ON r.content_id = e.content_id
                     WHERE e.chunk_id = ANY(%s) AND coalesce(r.file_id <> ALL(%s::bigint[]), true)
                       AND coalesce(r.part_id <> ALL(%s::bigint[]), true)
                    UNION ALL
                    SELECT p.chunk_id, p.factor FROM storage_pin p WHERE p.chunk_id = ANY(%s)
                ) wanted GROUP BY id
                """,
                [ids, list(without_files), list(without_parts), ids],
            )
            wanted = dict(cursor.fetchall())
        return {chunk_id: int(wanted.get(chunk_id, 0)) for chunk_id in ids}


class Chunk(models.Model):
    """A run of bytes, named by its SHA-256. No table in PostgreSQL records where the replicas of a chunk lie."""

    hash = DigestField(unique=True)
    size = models.IntegerField(editable=False)
    condemned_at = models.DateTimeField(null=True, editable=False)
    condemned_factor = models.PositiveSmallIntegerField(
        db_default=0, editable=False, help_text="the replicas that it was to have when it was condemned; 0 is unknown"
    )

    objects = ChunkQuerySet.as_manager()

    class Meta:
        indexes = (
            models.Index(
                fields=["condemned_at"], name="chunk_condemned", condition=models.Q(condemned_at__isnull=False)
            ),
        )

    def __str__(self) -> str:
        return self.hash


class Pin(models.Model):
    """A reference that keeps a chunk alive for an upload (RACES 2).

    A pin is recorded before the volumes are asked for the chunk, and lasts until the upload has ended.
    """

    pk = models.CompositePrimaryKey("upload_id", "chunk_id")
    upload = models.ForeignKey("storage.Upload", models.CASCADE, related_name="pins", db_index=False)
    chunk = models.ForeignKey(Chunk, models.PROTECT, related_name="pins")
    factor = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.upload_id}:{self.chunk_id}"
