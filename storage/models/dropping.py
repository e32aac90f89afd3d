"""Give up parts of the S3 door: their rows, their uploads, and the contents that nothing else refers to."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from django.db import transaction

from storage.models.chunk import Chunk
from storage.models.content import Content
from storage.models.job import Job
from storage.models.multipart import Multipart
from storage.models.part import Part
from storage.models.upload import Upload


@transaction.atomic
def drop_parts(part_ids: Collection[int]) -> list[uuid.UUID]:
    """Delete parts. Parts that no longer exist are left out.

    Returns:
        The ids of the uploads that were given up with the parts. The caller removes the staged bytes of these uploads
        after the commit.
    """
    parts = Part.objects.filter(pk__in=part_ids)
    # Parts change only under the locks of their contents, so the parts that are read below stay as they are read.
    Content.objects.locked(parts.values_list("content_id", flat=True))
    factors = dict(parts.values_list("pk", "replication_factor"))
    uploads = list(Upload.objects.filter(part__in=factors).order_by("id").values_list("id", flat=True))
    Job.cancel(Job.objects.filter(upload__in=uploads).values_list("id", flat=True))
    chunk_ids = Upload.objects.release(uploads) if uploads else set()
    chunk_ids |= Part.objects.remove(list(factors))
    Chunk.objects.condemn_unreferenced(chunk_ids, factor=max(factors.values(), default=0))
    return uploads


@transaction.atomic
def drop_multipart(multipart: Multipart) -> None:
    """Delete a multipart upload, whose row is locked, with its parts. The bodies of these parts are stored already."""
    drop_parts(list(Part.objects.filter(multipart=multipart).values_list("pk", flat=True)))
    Multipart.objects.filter(pk=multipart.pk).delete()


def drop_pending(part_ids: Collection[int]) -> list[uuid.UUID]:
    """Delete those parts that are still pending; return what ``drop_parts`` returns."""
    with transaction.atomic():
        pending = Part.objects.pending().filter(pk__in=part_ids)
        Content.objects.locked(pending.values_list("content_id", flat=True))
        return drop_parts(list(pending.values_list("pk", flat=True)))
