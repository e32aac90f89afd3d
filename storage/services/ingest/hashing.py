"""Hash an upload that has arrived in several requests, and record its content and file: its ingest can then begin."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator

import structlog
from django.db import transaction

from storage import phases
from storage.exceptions import LeaseLost, StagingDamaged
from storage.models import Body, Job, Resumable, Upload, record_acceptance
from storage.staging import files
from storage.staging.cutting import chunk_count
from storage.staging.pieces import PieceChecksums

log = structlog.get_logger(__name__)

BEAT_SECONDS = 5.0


def identify(job: Job, upload: Upload) -> Upload:
    """Find out which content an upload is, and record the content and the owner's file.

    Args:
        job: the upload's ingest job, which this worker has claimed.
        upload: an upload without a content.

    Returns:
        The upload with its content.

    Raises:
        LeaseLost: the upload was ended, or the job is another worker's.
        StagingDamaged: the staged bytes are not the bytes that arrived.
        ByteQuotaExceeded, FileQuotaExceeded: the owner's quota has no room for the file.
    """
    phases.enter("ingest.hash")
    row = Resumable.objects.filter(pk=upload.pk).first()
    if row is None:
        raise LeaseLost("the upload has been dropped")
    parts = [uuid.UUID(part) for part in row.parts or ()]
    digest, checksums = hashlib.sha256(), PieceChecksums(upload.piece_size)
    if row.parts is None:
        for piece in _beating(job, _staged(upload, job.size), upload.piece_size):
            digest.update(piece)
        packed = bytes(upload.piece_checksums)
    else:
        for piece in _beating(job, _copied(upload, parts, job.size), upload.piece_size):
            digest.update(piece)
            checksums.update(piece)
        packed = checksums.packed()
    body = Body(
        upload_id=upload.pk,
        is_known=True,
        owner_id=upload.owner_id,
        file_hash=digest.hexdigest(),
        name=row.name,
        size=job.size,
        chunk_size=upload.piece_size,
        chunk_count=chunk_count(job.size, upload.piece_size),
        piece_checksums=packed,
        replication_factor=upload.replication_factor,
        job_id=job.pk,
    )
    _record(job, body, parts)
    job.file_hash = body.file_hash
    log.info("upload.hashed", upload=str(upload.pk), job=str(job.pk), file_hash=body.file_hash, size=body.size)
    return Upload.objects.select_related("content").get(pk=upload.pk)


def _record(job: Job, body: Body, parts: list[uuid.UUID]) -> None:
    """Record content and file.

    The same commit deletes the rows of a joined upload's parts. The staged files of the parts are removed after the
    commit.
    """
    with transaction.atomic():
        rows = Resumable.objects.locked([body.upload_id, *parts])  # These rows are locked first (RACES 41).
        if record_acceptance(body, durable=True) is None:
            raise LeaseLost("the upload has been dropped")
        job.progress(done=0, total=body.chunk_count)
        Resumable.objects.filter(pk=body.upload_id).update(offset=body.size)
        if parts:
            Upload.objects.release(parts)
            Resumable.objects.filter(pk__in=parts).delete()
    for part in rows:
        if part.pk != body.upload_id:
            files.discard(part.pk)


def _staged(upload: Upload, size: int) -> Iterator[bytes]:
    return files.pieces(upload.pk, range(size), upload.piece_size, bytes(upload.piece_checksums))


def _copied(upload: Upload, parts: list[uuid.UUID], size: int) -> Iterator[bytes]:
    """Copy the parts into the upload's own staged file, one after the other, and yield their bytes.

    Another worker may copy the parts at the same time, after this worker has lost its lease. Two workers that copy the
    parts do no harm: both write the same bytes to the same positions.
    """
    known = Upload.objects.in_bulk(parts)
    sizes = dict(Resumable.objects.filter(pk__in=parts).values_list("pk", "offset"))
    with files.reopen(upload.pk, 0) as joined:
        for part_id in parts:
            if (part := known.get(part_id)) is None or part_id not in sizes:
                raise StagingDamaged("a part of the upload was ended before it was joined")
            for piece in _staged(part, sizes[part_id]):
                files.append(joined, piece)
                yield piece
        joined.truncate(size)
    files.sync(upload.pk)


def _beating(job: Job, pieces: Iterator[bytes], piece_size: int) -> Iterator[bytes]:
    """Yield the pieces, and report from time to time that this worker is alive and how much of the upload it has
    hashed.

    Raises:
        LeaseLost: the job is another worker's, or was cancelled.
    """
    beaten_at, done = time.monotonic(), 0
    for piece in pieces:
        yield piece
        done += len(piece)
        if time.monotonic() - beaten_at >= BEAT_SECONDS:
            beaten_at = time.monotonic()
            if not Job.objects.heartbeat({job: done // piece_size}):
                raise LeaseLost(str(job.pk))
