"""What there is to ingest, job by job, and cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from storage import phases
from storage.exceptions import IngestFailed, LeaseLost, StagingDamaged, TooFewReplicas
from storage.jobs import wakeups
from storage.models import Content, Job, Segment, Upload
from storage.models.content import Health
from storage.staging import files
from storage.staging.cutting import chunk_count

log = structlog.get_logger(__name__)

BATCH_CHUNKS = 256
BATCH_BYTES = 16 << 20
ANNOUNCED_CHUNKS = 1024
STAGING_DAMAGED = "Staging damaged"


@dataclass(eq=False)
class Work:
    """What one job has to ingest, and what this run has learnt of it.

    Attributes:
        job: an upload's own, or that of a segment.
        upload: whose body it is.
        content: what the body is; None while that is not known.
        segments: what other jobs see to, before the chunks of this one.
        chunks: (hash, bytes) of those that are this job's.
        count: how many they are.
        position: of the next one in the manifest.
        ids: row ids of a segment's chunks, in order.
        replications: copies of each chunk.
        distribution: chunk hash → node ids.
        epoch: of the topology, when the first batch was stored.
        over: it goes no further here.
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
        """Whether the distribution has every chunk: of many, it is asked of the volumes by who wants it."""
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
    """Open what a job has to ingest.

    Raises:
        LeaseLost: the upload has been dropped.
        StagingDamaged: its staged bytes are gone.
    """
    upload = job.upload
    if upload is None or (upload.content is None and job.kind == Job.Kind.INGEST):
        raise LeaseLost("the upload has been dropped")
    content = upload.content if job.kind == Job.Kind.INGEST else None
    segments: list[Segment] = []
    if content is None:
        segment = Segment.objects.get(pk=job.pk)  # not job.segment: job and segment would keep each other in memory
        start, size, chunk_size = segment.position, job.size, upload.piece_size
        checksums = bytes(segment.checksums)
    else:
        chunk_size = content.chunk_size
        if chunk_size == upload.piece_size:  # a content that was known keeps the size it was once cut to
            segments = Segment.objects.of(upload)
        start = sum(segment.count for segment in segments)
        size = content.size - start * chunk_size
        checksums = bytes(upload.piece_checksums)[4 * start :]
    phases.enter("ingest.read")
    span = range(start * chunk_size, start * chunk_size + size)
    chunks = files.read(upload.pk, span, chunk_size=chunk_size, piece_size=upload.piece_size, checksums=checksums)
    return Work(job, upload, content, segments, chunks, chunk_count(size, chunk_size), start)


def batches(works: Sequence[Work]) -> Iterator[list[Piece]]:
    """Chunks of all the uploads in turn, as many as fit a batch."""
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
                batch.clear()  # before the next is read, or there would be the bytes of two
                size = 0
    if batch:
        yield batch
        batch.clear()  # as above: whoever joins segments next reads batches of its own


@contextmanager
def sparing_others(job: Job, work: Work | None = None) -> Iterator[None]:
    """What goes wrong with one upload ends or delays its job, and leaves its batch-mates alone."""
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
