from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from storage.models.bucket import Bucket
from storage.models.content import Content
from storage.models.multipart import Multipart
from storage.models.object import Object
from storage.models.statements.prepared import Columns, rows


class PartQuerySet(models.QuerySet["Part"]):
    def pending(self) -> PartQuerySet:
        """The parts whose bodies are being stored, or have been stored and belong to nothing yet."""
        return self.filter(object=None, multipart=None)

    def remove(self, part_ids: Collection[int]) -> set[int]:
        """Delete parts, and the contents that nothing else refers to; return the row ids of these contents' chunks.

        The caller holds the locks of the contents' rows. A caller that deletes parts several times in a transaction
        condemns all their chunks at once, in one order (RACES 6).
        """
        if not part_ids:
            return set()
        deleted = rows("DELETE FROM storage_part WHERE id = ANY(%s::bigint[]) RETURNING content_id", [list(part_ids)])
        return Content.objects.remove_unreferenced({content_id for (content_id,) in deleted})


class Part(models.Model):
    """One content on behalf of the S3 door: a reference, as a file is (ADR 31).

    A part belongs to an object or to a multipart upload. A part that belongs to neither is *pending*: its body is being
    stored, and the request that brought the body will give the part its place.
    """

    bucket = models.ForeignKey(Bucket, models.PROTECT, related_name="+")
    content = models.ForeignKey(Content, models.PROTECT, related_name="parts")
    object = models.ForeignKey(Object, models.PROTECT, null=True, related_name="parts", db_index=False)
    multipart = models.ForeignKey(Multipart, models.PROTECT, null=True, related_name="parts", db_index=False)
    number = models.IntegerField(default=0, help_text="its place in the object or in the multipart upload")
    size = models.BigIntegerField(help_text="bytes, as in the content")
    etag = models.TextField(help_text="MD5 in hex")
    checksums = models.JSONField(default=dict, help_text="algorithm → checksum in base64")
    replication_factor = models.PositiveIntegerField()
    modified_at = models.DateTimeField(db_default=Now())

    objects = PartQuerySet.as_manager()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["object", "number"], name="part_place_in_object", condition=Q(object__isnull=False)
            ),
            models.UniqueConstraint(
                fields=["multipart", "number"], name="part_place_in_multipart", condition=Q(multipart__isnull=False)
            ),
            models.CheckConstraint(condition=Q(object=None) | Q(multipart=None), name="part_of_one_thing"),
        )
        indexes = (models.Index(fields=["id"], name="part_pending", condition=Q(object=None, multipart=None)),)
        ordering = ("number",)

    def __str__(self) -> str:
        return f"part {self.number}, {self.etag}"

    @classmethod
    def find_pending(cls, part_id: int) -> tuple[Part, str] | None:
        """A pending part and the state of its content; None if there is no such part, or if it is not pending."""
        columns = _columns()
        statement = f"""
            SELECT {columns.of("p")}, c.state FROM storage_part p JOIN storage_content c ON c.id = p.content_id
             WHERE p.id = %s AND p.object_id IS NULL AND p.multipart_id IS NULL
        """  # noqa: S608  names of columns
        for row in rows(statement, [part_id]):
            part = columns.take(cls, iter(row))
            assert part is not None
            return part, row[-1]
        return None


@lru_cache(maxsize=1)
def _columns() -> Columns:
    return Columns(Part)
