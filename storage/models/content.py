from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, models
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now

from storage.exceptions import NoSuchFile
from storage.models.chunk import Chunk
from storage.models.fields import DigestField
from storage.models.remains import Remains
from storage.models.statements.prepared import rows
from storage.models.tally import Tally

SHORTEST_PAUSE = 60.0  # The smallest number of seconds between two looks at an unretrievable content.
LONGEST_PAUSE = 86_400.0  # The largest number of seconds between two looks at an unretrievable content.


@dataclass(frozen=True)
class Health:
    """The replication of a content, as found at one topology epoch.

    Attributes:
        retrievable: True if every chunk has a copy.
        minimum: the smallest number of replicas of any of its chunks; the target, for a content without chunks.
        average: the mean number of replicas per manifest entry.
        maximum: the largest number of replicas of any of its chunks; the target, for a content without chunks.
        epoch: the epoch of the topology whose volumes were asked.
    """

    retrievable: bool
    minimum: int
    average: float
    maximum: int
    epoch: int

    @classmethod
    def of(cls, replications: Sequence[int], *, target: int, epoch: int) -> Health:
        """Summarise ``replications``, the number of replicas of each manifest entry."""
        counts = replications or [target]
        return cls(all(replications), min(counts), round(sum(counts) / len(counts), 3), max(counts), epoch)


class ContentQuerySet(models.QuerySet["Content"]):
    def unreadable(self) -> ContentQuerySet:
        """Stored contents with a chunk that was found on no node."""
        return self.filter(state=Content.State.READY, retrievable=False)

    def short(self) -> ContentQuerySet:
        """Stored contents that can be read and have a chunk with fewer copies than it should have."""
        ready = self.filter(state=Content.State.READY, retrievable=True, chunk_count__gt=0)
        return ready.filter(min_replication__lt=F("target"))

    def locked(self, content_ids: Iterable[int]) -> set[int]:
        """Lock the rows in the order of their ids until the transaction ends; return the ids that still exist."""
        locked = "SELECT id FROM storage_content WHERE id = ANY(%s::bigint[]) ORDER BY id FOR NO KEY UPDATE"
        return {content_id for (content_id,) in rows(locked, [list(content_ids)])}

    def remove_unreferenced(self, content_ids: Iterable[int]) -> set[int]:
        """Delete the contents among these that nothing refers to, with their manifests. Ready contents leave remains.

        The caller holds the locks of the contents' rows, so no reference is made now. This method need not look for
        uploads, because every accepted upload has a file or a part, which refers to the content.

        Returns:
            The row ids of the chunks of the deleted contents, which the caller then condemns.
        """
        unreferenced = """
            SELECT c.id FROM storage_content c WHERE c.id = ANY(%s::bigint[])
               AND NOT EXISTS (SELECT FROM storage_reference r WHERE r.content_id = c.id)
        """
        ids = [content_id for (content_id,) in rows(unreferenced, [list(content_ids)])]
        if not ids:
            return set()
        chunk_ids = Remains.keep(ids)
        rows("DELETE FROM storage_content WHERE id = ANY(%s::bigint[])", [ids])
        return chunk_ids

    def whole(self, content_ids: Iterable[int]) -> set[int]:
        """The ids of the contents whose manifest has no gap and whose chunks sum up to the content's size (RACES 4)."""
        whole = rows(
            """
            SELECT c.id FROM storage_content c
              LEFT JOIN storage_manifestentry e ON e.content_id = c.id
              LEFT JOIN storage_chunk k ON k.id = e.chunk_id
             WHERE c.id = ANY(%s::bigint[]) GROUP BY c.id
            HAVING count(e.position) = c.chunk_count AND coalesce(max(e.position), -1) = c.chunk_count - 1
               AND coalesce(min(e.position), 0) = 0 AND coalesce(sum(k.size), 0) = c.size
            """,
            [list(content_ids)],
        )
        return {content_id for (content_id,) in whole}

    def outdated(self, epoch: int, most: int) -> list[Content]:
        """Contents whose health summaries are of an older topology; contents with the fewest replicas come first.

        A million contents may be outdated, but with few different epochs. The index gives the contents with the fewest
        replicas for each epoch, and the query merges these short lists.

        Args:
            epoch: the epoch of the present topology.
            most: the largest number of contents to return.
        """
        contents = self.raw(
            """
            WITH RECURSIVE epochs AS (
                SELECT min(health_epoch) AS epoch FROM storage_content WHERE state = 'ready'
                UNION ALL
                SELECT (SELECT min(health_epoch) FROM storage_content WHERE state = 'ready' AND health_epoch > epoch)
                  FROM epochs WHERE epoch < %(epoch)s
            )
            SELECT worst.* FROM epochs, LATERAL (
                SELECT * FROM storage_content WHERE state = 'ready' AND health_epoch = epochs.epoch
                 ORDER BY min_replication, id LIMIT %(most)s
            ) AS worst WHERE epochs.epoch < %(epoch)s ORDER BY min_replication, id LIMIT %(most)s
            """,
            {"epoch": epoch, "most": most},
        )
        return list(contents)

    def look_again_at_lost(self, most: int) -> int:
        """Mark as outdated the health summaries of unretrievable contents whose pause since the last look is over.

        The pause is half of the time for which the content had been lost at the last look, but at least a minute and
        at most a day. Each pause is therefore 1.5 times as long as the pause before. If the last look lies more than
        a minute in the future, PostgreSQL's clock was set back since, and the pause is over too.

        Args:
            most: the largest number of contents to mark.

        Returns:
            The number of contents that were marked.
        """
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE storage_content SET health_epoch = -1 WHERE id IN (
                    SELECT id FROM storage_content,
                           LATERAL (SELECT (health_at - coalesce(lost_at, health_at)) / 2) AS h (half),
                           LATERAL (SELECT %(shortest)s * interval '1 second', %(longest)s * interval '1 second')
                                   AS p (shortest, longest)
                     WHERE state = 'ready' AND NOT retrievable AND health_epoch >= 0
                       AND (health_at + least(greatest(half, shortest), longest) <= statement_timestamp()
                            OR health_at > statement_timestamp() + shortest)
                     LIMIT %(most)s FOR NO KEY UPDATE OF storage_content SKIP LOCKED
                )
                """,
                {"shortest": SHORTEST_PAUSE, "longest": LONGEST_PAUSE, "most": most},
            )
            return int(cursor.rowcount)

    def become_ready(self, health: Mapping[int, Health]) -> None:
        """Turn contents ready. A content that has a health summary of a newer topology keeps that summary.

        Args:
            health: row id of the content → its health summary.
        """
        if not health:
            return
        summaries = [(pk, h.retrievable, h.minimum, h.average, h.maximum, h.epoch) for pk, h in sorted(health.items())]
        rows(
            """
            WITH seen AS (
                SELECT * FROM unnest(%s::bigint[], %s::bool[], %s::int[], %s::float8[], %s::int[], %s::bigint[])
                       AS seen (id, retrievable, minimum, average, maximum, epoch)
            )
            UPDATE storage_content c
               SET state = 'ready', ready_at = coalesce(c.ready_at, statement_timestamp()),
                   retrievable = CASE WHEN newer THEN seen.retrievable ELSE c.retrievable END,
                   min_replication = CASE WHEN newer THEN minimum ELSE c.min_replication END,
                   avg_replication = CASE WHEN newer THEN average ELSE c.avg_replication END,
                   max_replication = CASE WHEN newer THEN maximum ELSE c.max_replication END,
                   health_at = CASE WHEN newer THEN statement_timestamp() ELSE c.health_at END,
                   lost_at = CASE WHEN NOT newer THEN c.lost_at
                                  WHEN NOT seen.retrievable THEN coalesce(c.lost_at, statement_timestamp()) END,
                   health_epoch = greatest(c.health_epoch, epoch)
              FROM seen JOIN storage_content had USING (id), LATERAL (SELECT had.health_epoch <= epoch) AS n (newer)
             WHERE c.id = seen.id
            """,
            [list(column) for column in zip(*summaries, strict=True)],
        )


class Content(models.Model):
    """A distinct byte string, named by its SHA-256, with its manifest and health summary."""

    class State(models.TextChoices):
        INGESTING = "ingesting"
        READY = "ready"

    file_hash = DigestField(unique=True)
    size = models.BigIntegerField(editable=False)
    chunk_size = models.IntegerField(editable=False)
    chunk_count = models.IntegerField(editable=False)
    target = models.PositiveIntegerField(
        db_default=0,
        editable=False,
        help_text="the largest factor among the files and parts; kept by a trigger (ADR 12)",
    )
    state = models.CharField(max_length=16, choices=State, default=State.INGESTING, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    ready_at = models.DateTimeField(null=True, editable=False)

    # The health summary (RACES 19): exact when its epoch is the cluster's, otherwise an estimate.
    retrievable = models.BooleanField(default=False, editable=False)
    min_replication = models.PositiveIntegerField(default=0, editable=False)
    avg_replication = models.FloatField(default=0.0, editable=False)
    max_replication = models.PositiveIntegerField(default=0, editable=False)
    health_at = models.DateTimeField(null=True, editable=False)
    health_epoch = models.BigIntegerField(default=-1, editable=False)
    lost_at = models.DateTimeField(
        null=True, editable=False, help_text="when it was first seen to be unretrievable, if it is so by now"
    )

    objects = ContentQuerySet.as_manager()

    class Meta:
        indexes = (
            models.Index(
                fields=["health_epoch", "min_replication", "id"], name="content_health", condition=Q(state="ready")
            ),
            models.Index(
                fields=["health_epoch", "min_replication", "id"],
                name="content_short",
                condition=Q(state="ready", retrievable=True, chunk_count__gt=0, min_replication__lt=F("target")),
            ),
            models.Index(
                fields=["state"], name="content_unreadable", condition=Q(state="ingesting") | Q(retrievable=False)
            ),
        )

    def __str__(self) -> str:
        return self.file_hash

    def record_health(self, health: Health) -> None:
        """Write an exact health summary, unless the row has a summary of a newer topology."""
        type(self).objects.filter(pk=self.pk, health_epoch__lte=health.epoch).update(
            retrievable=health.retrievable,
            min_replication=health.minimum,
            avg_replication=health.average,
            max_replication=health.maximum,
            health_at=Now(),
            health_epoch=health.epoch,
            lost_at=None if health.retrievable else Coalesce("lost_at", Now()),
        )

    @classmethod
    def largest_target(cls) -> int:
        """The largest number of replicas that any file or part wants; 0 if there is none."""
        ((largest,),) = rows("SELECT max(factor) FROM storage_reference", [])
        return int(largest or 0)

    @classmethod
    def chunks_by_target(cls) -> dict[int, int]:
        """Target → number of chunks in the manifests of all contents with this target."""
        return Tally.totals(Tally.What.WANTED)

    @classmethod
    def chunks_by_span(cls, boundaries: Sequence[datetime]) -> list[dict[int, int]]:
        """For each span of time, target → number of chunks in the manifests of contents that were made in this span.

        The query reads every content, which takes a second for some millions of contents.

        Args:
            boundaries: the times between two spans, in ascending order; there is one more span than boundaries.
        """
        spans: list[dict[int, int]] = [{} for _ in range(len(boundaries) + 1)]
        counted = rows(
            """
            SELECT width_bucket(created_at, %s::timestamptz[]), target, sum(chunk_count) FROM storage_content
             WHERE target > 0 AND chunk_count > 0 GROUP BY 1, 2
            """,
            [list(boundaries)],
        )
        for span, target, chunks in counted:
            spans[span][target] = int(chunks)
        return spans

    def manifest(self, positions: range | None = None) -> list[tuple[str, int]]:
        """The manifest of a ready content: (chunk hash, size in bytes) in order. A repeated chunk is listed repeatedly.

        Args:
            positions: the positions of the manifest's entries to return, counted from 0; None for all entries.

        Raises:
            NoSuchFile: the content was deleted after this object was read.
        """
        entries = ManifestEntry.objects.filter(content=self).order_by("position")
        if positions is not None:
            entries = entries.filter(position__gte=positions.start, position__lt=positions.stop)
        chunks = list(entries.values_list("chunk__hash", "chunk__size"))
        if len(chunks) != (self.chunk_count if positions is None else len(positions)):
            raise NoSuchFile(f"no file {self.file_hash}")
        return chunks


class ManifestEntry(models.Model):
    """One place in the ordered list of chunks that make a content."""

    pk = models.CompositePrimaryKey("content_id", "position")
    content = models.ForeignKey(Content, models.PROTECT, related_name="entries", db_index=False)
    position = models.IntegerField()
    chunk = models.ForeignKey(Chunk, models.PROTECT, related_name="entries")

    def __str__(self) -> str:
        return f"{self.content_id}[{self.position}]"

    @staticmethod
    def of(contents: Sequence[Content]) -> dict[int, list[tuple[str, int]]]:
        """Row id of each content → its manifest, as far as it is recorded: (chunk hash, size in bytes) in order."""
        manifests: dict[int, list[tuple[str, int]]] = {content.pk: [] for content in contents}
        entries = ManifestEntry.objects.filter(content__in=contents).order_by("content_id", "position")
        for content_id, chunk_hash, size in entries.values_list("content_id", "chunk__hash", "chunk__size"):
            manifests[content_id].append((chunk_hash, size))
        return manifests

    @staticmethod
    def record(entries: Sequence[tuple[int, int, int]]) -> None:
        """Insert (content, position, chunk) rows; existing rows stay as they are.

        The rows are inserted in the order of their chunks' hashes (RACES 6): the commit locks the chunks one by one in
        this order, and so does a deletion.
        """
        if not entries:
            return
        rows(
            """
            INSERT INTO storage_manifestentry (content_id, position, chunk_id)
            SELECT content, position, chunk
              FROM unnest(%s::bigint[], %s::int[], %s::bigint[]) AS entry (content, position, chunk)
              JOIN storage_chunk k ON k.id = chunk ORDER BY k.hash
            ON CONFLICT DO NOTHING
            """,
            [list(column) for column in zip(*entries, strict=True)],
        )
