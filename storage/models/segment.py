from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from django.db import models

from storage.models.job import Job
from storage.models.statements.prepared import rows
from storage.models.upload import Upload

SEGMENT_BYTES = 16 << 20  # A body of fewer bytes has no segments.


class SegmentQuerySet(models.QuerySet["Segment"]):
    def cut_off(self, upload: Upload, position: int, size: int, checksums: bytes) -> bool:
        """Queue the ingest of a segment that has been staged; return False if the upload has been dropped.

        Args:
            upload: the upload that the segment is a part of.
            position: the position of the segment's first chunk in the manifest.
            size: the size of the segment in bytes, a multiple of the upload's ``piece_size``.
            checksums: the CRC-32 of each piece of the segment, 4 bytes little-endian.
        """
        job_ids = rows(
            """
                WITH upload AS (SELECT id FROM storage_upload WHERE id = %(upload)s FOR KEY SHARE),
                job AS (
                    INSERT INTO storage_job (id, kind, queue, priority, upload_id, size, state, done, total,
                           waiting_for, attempts, fence)
                    SELECT %(job)s, %(kind)s, 'ingest', %(priority)s, id, %(size)s, 'queued', 0, %(total)s, '', 0, 0
                      FROM upload RETURNING id, upload_id
                )
                INSERT INTO storage_segment (job_id, upload_id, position, checksums)
                SELECT id, upload_id, %(position)s, %(checksums)s
                  FROM job, set_config('synchronous_commit', 'off', true) AS lazily RETURNING job_id
                """,
            {
                "job": uuid.uuid4(),
                "kind": Job.Kind.INGEST_SEGMENT,
                "priority": Job.Kind.INGEST_SEGMENT.priority,
                "upload": upload.pk,
                "size": size,
                "total": len(checksums) // 4,
                "position": position,
                "checksums": checksums,
            },
        )
        return bool(job_ids)

    def of(self, upload: Upload) -> list[Segment]:
        """An upload's segments from its beginning up to the first gap."""
        if upload.content is not None and upload.content.size < SEGMENT_BYTES:
            return []
        segments: list[Segment] = []
        end = 0
        for segment in self.filter(upload=upload).order_by("position"):
            if segment.position != end:
                break
            segments.append(segment)
            end += segment.count
        return segments

    def unstored(self, segments: Sequence[Segment]) -> list[Job]:
        """The jobs of the segments that are not stored yet, read from the database now.

        Args:
            segments: the first segments of an upload, without a gap.
        """
        return list(_jobs(segments).exclude(state=Job.State.SUCCEEDED).defer("result"))

    def results(self, segments: Sequence[Segment]) -> dict[uuid.UUID, dict[str, Any]]:
        """Job id → result of the job, for segments that are all stored.

        A result has lists of ``chunks`` and ``replications``, one entry per chunk in order. A result also has the
        ``factor`` and the topology ``epoch`` with which the segment was stored.

        Args:
            segments: the first segments of an upload, without a gap.
        """
        return dict(_jobs(segments).values_list("pk", "result"))  # type: ignore[arg-type]  # no result is null here

    def reopen(self, upload: Upload) -> int:
        """Queue again the segments stored with fewer replicas than the upload wants now; return their number."""
        stored = Job.objects.filter(segment__upload=upload, state=Job.State.SUCCEEDED)
        fewer = stored.filter(result__factor__lt=upload.replication_factor)
        return fewer.update(state=Job.State.QUEUED, finished_at=None, attempts=0)


def _jobs(segments: Sequence[Segment]) -> models.QuerySet[Job]:
    last = segments[-1]
    return Job.objects.filter(segment__upload=last.upload_id, segment__position__lte=last.position)


class Segment(models.Model):
    """A run of a body's chunks that a job of its own ingests while the rest of the body still arrives (RACES 1).

    The job's result holds the row id of each chunk and the number of its copies, and never names a node.
    """

    job = models.OneToOneField(Job, models.CASCADE, primary_key=True, related_name="segment")
    upload = models.ForeignKey(Upload, models.CASCADE, related_name="segments")
    position = models.IntegerField(help_text="of its first chunk in the manifest")
    checksums = models.BinaryField(help_text="CRC-32 of each of its pieces, 4 bytes little-endian")

    objects = SegmentQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.upload_id}[{self.position}:{self.position + self.count}]"

    @property
    def count(self) -> int:
        """The number of chunks in this segment."""
        return len(self.checksums) // 4
