"""The work of ingest jobs: the chunks that each job has to store, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from storage import phases
from storage.exceptions import (
    ByteQuotaExceeded,
    FileQuotaExceeded,
    IngestFailed,
    LeaseLost,
    StagingDamaged,
    TooFewReplicas,
)
from storage.jobs import wakeups
from storage.models import Content, Job, Segment, Upload
from storage.models.content import Health
from storage.services.ingest.hashing import identify
from storage.staging import files
from storage.staging.cutting import chunk_count

log = structlog.get_logger(__name__)

BATCH_CHUNKS = 256
BATCH_BYTES = 16 << 20
ANNOUNCED_CHUNKS = 1024
STAGING_DAMAGED = "Staging damaged"


@dataclass(eq=False)
class Work:
    """The chunks that one job has to ingest, and the state of this run.

    Attributes:
        job: the upload's own job, or the job of one of its segments.
        upload: the upload.
        content: the content of the body; None for a segment's job.
        segments: the segments, which have jobs of their own. The segments come before the chunks of this job.
        chunks: (hash, bytes) of the chunks of this job, in order.
        count: the number of ``chunks``.
        position: the position of the next chunk in the manifest.
        ids: for a segment's job, the row ids of the chunks stored so far, in order.
        replications: the number of copies of each chunk stored so far, in order.
        distribution: chunk hash → ids of the nodes that hold the chunk.
        epoch: the topology epoch when the first batch was stored; negative before that.
        over: True if this run does no more for the job.
    """

    job: Job
    upload: Upload
    content: Content | None
    segments: list[Segment]
    chunks: Iterator[tuple[str, bytes]]
    count: int
    position: int
    ids: list[int] = field(default_factory=list)
    replications: list[int] = field(default_factory=list)
    distribution: dict[str, list[str]] = field(default_factory=dict)
    epoch: int = -1
    over: bool = False

    @property
    def is_done(self) -> bool:
        return not self.over and len(self.replications) == self.count

    @property
    def is_distribution_whole(self) -> bool:
        """True if ``distribution`` gets every chunk. If it lacks chunks, the API asks the volumes for them."""
        return not self.segments and self.count <= ANNOUNCED_CHUNKS

    @property
    def health(self) -> Health:
        return Health.of(self.replications, target=self.upload.replication_factor, epoch=self.epoch)


@dataclass(frozen=True)
class Piece:
    """One chunk of one upload."""

    work: Work
    position: int
    chunk_hash: str
    data: bytes


def begin(job: Job) -> Work:
    """Open the staged bytes that a job has to ingest. An upload that arrived in several requests is hashed first.

    Raises:
        LeaseLost: the upload has been dropped.
        StagingDamaged: the staged bytes are gone, or are not the bytes that arrived.
    """
    upload = job.upload
    if upload is None:
        raise LeaseLost("the upload has been dropped")
    if upload.content is None and job.kind == Job.Kind.INGEST:
        upload = job.upload = identify(job, upload)
    content = upload.content if job.kind == Job.Kind.INGEST else None
    segments: list[Segment] = []
    if content is None:
        # ``job.segment`` is not used, because job and segment would then keep each other in memory.
        segment = Segment.objects.get(pk=job.pk)
        start, size, chunk_size = segment.position, job.size, upload.piece_size
        checksums = bytes(segment.checksums)
    else:
        chunk_size = content.chunk_size
        # A content that was known before keeps its former chunk size. Segments of another chunk size are not used.
        if chunk_size == upload.piece_size:
            segments = Segment.objects.of(upload)
        start = sum(segment.count for segment in segments)
        size = content.size - start * chunk_size
        checksums = bytes(upload.piece_checksums)[4 * start :]
    phases.enter("ingest.read")
    span = range(start * chunk_size, start * chunk_size + size)
    chunks = files.read(upload.pk, span, chunk_size=chunk_size, piece_size=upload.piece_size, checksums=checksums)
    return Work(job, upload, content, segments, chunks, chunk_count(size, chunk_size), start)


def batches(works: Sequence[Work]) -> Iterator[list[Piece]]:
    """Cut the chunks of all the uploads, one upload after the other, into batches."""
    batch: list[Piece] = []
    size = 0
    for work in works:
        while not work.over:
            chunk = None
            with sparing_others(work.job, work):
                chunk = next(work.chunks, None)
            if chunk is None:
                break
            chunk_hash, data = chunk
            batch.append(Piece(work, work.position, chunk_hash, data))
            work.position += 1
            size += len(data)
            if len(batch) >= BATCH_CHUNKS or size >= BATCH_BYTES:
                yield batch
                # The batch is cleared before the next chunk is read: only one batch may be in memory.
                batch.clear()
                size = 0
    if batch:
        yield batch
        # The last batch is cleared too. A job that waits for segments may store some of them next, and the batches of
        # these segments need the memory.
        batch.clear()


@contextmanager
def sparing_others(job: Job, work: Work | None = None) -> Iterator[None]:
    """A failure inside the ``with`` block ends or delays this job only, and not the other jobs of its batch."""
    try:
        try:
            yield
        except LeaseLost:
            raise
        except TooFewReplicas as error:
            job.wait(Job.Lack(error.lack))
            log.warning("ingest.waits", job=str(job.pk), lack=error.lack)
            wakeups.announce(job)
        except StagingDamaged as error:
            job.fail(STAGING_DAMAGED, str(error))
            log.error("ingest.staging_damaged", job=str(job.pk), error=str(error))
            wakeups.announce(job)
        except (ByteQuotaExceeded, FileQuotaExceeded) as error:
            job.fail("Quota exceeded", str(error))
            log.warning("ingest.quota_exceeded", job=str(job.pk), error=str(error))
            wakeups.announce(job)
        except IngestFailed as error:
            job.retry("Ingest failed", str(error))
            log.error("ingest.failed", job=str(job.pk), error=str(error))
        else:
            return
    except LeaseLost as error:
        log.info("ingest.lease_lost", job=str(job.pk), error=str(error))
    if work is not None:
        work.over = True


def works_of(batch: Sequence[Piece]) -> list[Work]:
    return list(dict.fromkeys(piece.work for piece in batch))
