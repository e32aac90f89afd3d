"""From staging to the node volumes: whole batches of chunks, of one large upload or of many small ones.

The phases, in order: ``ingest.read``, and for each batch ``ingest.pin``, ``ingest.locate``, ``ingest.count``,
``ingest.write``, ``ingest.record``, then ``ingest.close``. A worker may die in any of them: the next one begins the
upload again, finds what is already there, and ends it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.db import InterfaceError, OperationalError, connection, transaction

from storage import phases, wakeups
from storage.chunking import cut, read_ahead, read_pieces
from storage.exceptions import IngestFailed, LeaseLost, StagingDamaged, TooFewReplicas
from storage.models import Content, Job, ManifestEntry, Upload
from storage.models.content import Health
from storage.placement import acknowledgeable
from storage.replicas.writing import Stored, store
from storage.topology import Topology

log = structlog.get_logger(__name__)

CLAIM_JOBS = 64
CLAIM_BYTES = 32 << 20
BATCH_CHUNKS = 256
BATCH_BYTES = 16 << 20
READ_AHEAD_CHUNKS = 8  # of an upload up to which a thread would cost more than it saves
ANNOUNCED_CHUNKS = 1024


@dataclass(eq=False)
class Work:
    """One upload under ingest, and what this run has learnt of it."""

    job: Job
    upload: Upload
    content: Content
    chunks: Iterator[tuple[str, bytes]]
    position: int = 0
    replications: list[int] = field(default_factory=list)
    distribution: dict[str, list[str]] = field(default_factory=dict)
    epoch: int = -1
    over: bool = False

    @property
    def is_complete(self) -> bool:
        return not self.over and len(self.replications) == self.content.chunk_count

    @property
    def is_distribution_whole(self) -> bool:
        """Whether the distribution has every chunk: of many, it is asked of the volumes by who wants it."""
        return self.content.chunk_count <= ANNOUNCED_CHUNKS

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


def run_queued() -> int:
    """Claim what is queued, as much as fits, and ingest it together; returns the number of jobs claimed."""
    wakeups.taken("ingest")
    jobs = Job.objects.claim("ingest", most=CLAIM_JOBS, most_bytes=CLAIM_BYTES)
    if jobs and Job.objects.queued("ingest").exists():
        wakeups.wake("ingest")
    ingest(jobs)
    return len(jobs)


def ingest(jobs: Sequence[Job]) -> None:
    """Store the uploads of claimed jobs; each job ends, goes back to the queue, or is another worker's by now."""
    works: list[Work] = []
    try:
        for job in jobs:
            with _sparing_others(job):
                works.append(_begin(job))
        for batch in _batches(works):
            _store_batch(batch)
        _close_empty(works)
    except (OperationalError, InterfaceError) as error:
        log.warning("ingest.database", error=str(error))
        connection.close()
        _put_back([job for job in jobs if not job.is_terminal], error, waiting_for="database")
    except Exception as error:
        log.exception("ingest.failed", jobs=[str(job.pk) for job in jobs])
        _put_back([job for job in jobs if not job.is_terminal], error)


def _begin(job: Job) -> Work:
    upload = job.upload
    if upload is None or upload.content is None:
        raise LeaseLost("the upload has been dropped")
    phases.enter("ingest.read")
    try:
        staged = upload.staged_path.open("rb")
    except FileNotFoundError:
        raise StagingDamaged("the staged bytes are gone") from None
    pieces = read_pieces(staged, upload.content.size, upload.piece_size, bytes(upload.piece_checksums))
    log.info("ingest.started", job=str(job.pk), file_hash=job.file_hash, attempt=job.attempts)
    chunks = _hashed(cut(pieces, upload.content.chunk_size))
    if upload.content.chunk_count > READ_AHEAD_CHUNKS:
        # The next batch is read and hashed while this one is written.
        chunks = read_ahead(chunks, max(1, BATCH_BYTES // upload.content.chunk_size))
    return Work(job, upload, upload.content, chunks)


def _hashed(chunks: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    return ((hashlib.sha256(data).hexdigest(), data) for data in chunks)


def _batches(works: Sequence[Work]) -> Iterator[list[Piece]]:
    """Chunks of all the uploads in turn, as many as fit a batch."""
    batch: list[Piece] = []
    size = 0
    for work in works:
        while not work.over:
            chunk = None
            with _sparing_others(work.job, work):
                chunk = next(work.chunks, None)
            if chunk is None:
                break
            chunk_hash, data = chunk
            batch.append(Piece(work, work.position, chunk_hash, data))
            work.position += 1
            size += len(data)
            if len(batch) >= BATCH_CHUNKS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _store_batch(batch: Sequence[Piece]) -> None:
    phases.enter("ingest.pin")
    data = {piece.chunk_hash: piece.data for piece in batch}
    wanted = {(p.work.upload.pk, p.chunk_hash): p.work.upload.replication_factor for p in batch}
    ids = Upload.objects.pin(wanted, {chunk_hash: len(chunk) for chunk_hash, chunk in data.items()})
    data = {chunk_hash: chunk for chunk_hash, chunk in data.items() if chunk_hash in ids}
    targets: dict[str, int] = {}
    for (_, chunk_hash), factor in wanted.items():
        targets[chunk_hash] = max(factor, targets.get(chunk_hash, 0))
    topology = Topology.load()
    stored = store(topology, data, targets, operation="ingest")
    phases.enter("ingest.record")
    for work in _works_of(batch):
        with _sparing_others(work.job, work):
            _judge(work, [piece for piece in batch if piece.work is work], stored, topology)
    _record(batch, ids)
    for chunk_hash in sorted(stored.suspects):
        Job.request(Job.Kind.REPAIR, chunk_hash)


def _judge(work: Work, pieces: Sequence[Piece], stored: Stored, topology: Topology) -> None:
    """Keep the replica counts; an upload that could not be acknowledged goes no further.

    Raises:
        TooFewReplicas: some chunk is below what an acknowledgement needs.
        LeaseLost: the upload was dropped before its chunks could be pinned.
    """
    if work.epoch < 0:
        work.epoch = topology.cluster.topology_epoch
    for piece in pieces:
        if piece.chunk_hash not in stored.holders:
            raise LeaseLost("the upload has been dropped")
        count = stored.counted(piece.chunk_hash)
        if count < acknowledgeable(work.upload.replication_factor):
            raise TooFewReplicas(stored.lack or "nodes")
        work.replications.append(count)
        if work.is_distribution_whole:
            work.distribution[piece.chunk_hash] = [member.node_id for member in stored.holders[piece.chunk_hash]]


def _record(batch: Sequence[Piece], ids: dict[str, int]) -> None:
    """Manifest rows and progress, and the end of uploads that are whole by now, in one commit.

    It carries every job's fencing token. Staging goes once it has happened (RACES 4).
    """
    works = [work for work in _works_of(batch) if not work.over]
    if any(work.is_complete for work in works):
        phases.enter("ingest.close")
    with transaction.atomic():
        # Contents before jobs, as everybody does: a deletion of the content is over or waits.
        contents = Content.objects.locked({work.content.pk for work in works})
        mine = Job.objects.heartbeat({work.job: len(work.replications) for work in works})
        for work in works:
            if work.job.pk not in mine or work.content.pk not in contents:
                work.over = True
                log.info("ingest.lease_lost", job=str(work.job.pk))
        # In the order of hashes (RACES 6): the commit locks the chunks one by one, as a deletion does.
        pieces = sorted((piece for piece in batch if not piece.work.over), key=lambda piece: piece.chunk_hash)
        ManifestEntry.record([(p.work.content.pk, p.position, ids[p.chunk_hash]) for p in pieces])
        closed = _close([work for work in works if work.is_complete])
    _end(closed)


def _close_empty(works: Sequence[Work]) -> None:
    """End the uploads without any chunk."""
    empty = [work for work in works if work.is_complete]
    if empty:
        phases.enter("ingest.close")
        with transaction.atomic():
            contents = Content.objects.locked({work.content.pk for work in empty})
            closed = _close([work for work in empty if work.content.pk in contents])
        _end(closed)
        for work in empty:
            work.over = True


def _close(works: Sequence[Work]) -> list[Work]:
    """Turn contents ready, whose rows are locked; returns the uploads whose jobs were still this worker's."""
    if not works:
        return []
    whole = Content.objects.whole({work.content.pk for work in works})
    for work in works:
        if work.content.pk not in whole:
            with _sparing_others(work.job, work):
                raise IngestFailed("the manifest has a gap")
    sound = [work for work in works if work.content.pk in whole]
    mine = Job.objects.succeed({work.job: _result(work.content) for work in sound})
    closed = [work for work in sound if work.job.pk in mine]
    Content.objects.become_ready({work.content.pk: work.health for work in closed})
    Upload.objects.release(work.upload.pk for work in closed)
    for work in works:
        work.over = True
    return closed


def _result(content: Content) -> dict[str, Any]:
    return {"file_hash": content.file_hash, "size": content.size, "chunks": content.chunk_count}


def _end(works: Sequence[Work]) -> None:
    """After the commit: the staged bytes go, and who waits for the upload is told where its chunks are."""
    for work in works:
        work.upload.discard_staged()
        log.info("ingest.succeeded", job=str(work.job.pk), file_hash=work.job.file_hash)
    wakeups.announce_with(
        {work.job: {"distribution": work.distribution} if work.is_distribution_whole else {} for work in works}
    )


@contextmanager
def _sparing_others(job: Job, work: Work | None = None) -> Iterator[None]:
    """What goes wrong with one upload ends or delays its job, and leaves its batch-mates alone."""
    try:
        try:
            yield
        except LeaseLost:
            raise
        except TooFewReplicas as error:
            job.wait(error.lack)
            log.warning("ingest.waits", job=str(job.pk), lack=error.lack)
            wakeups.announce(job)
        except StagingDamaged as error:
            job.fail("Staging damaged", str(error))
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


def _put_back(jobs: Sequence[Job], error: Exception, waiting_for: str = "") -> None:
    """After a failure that all share. When even this fails, the leases end and the sweeper does it."""
    for job in jobs:
        try:
            if waiting_for:
                job.wait(waiting_for)
            else:
                job.retry("Ingest failed", repr(error))
            if job.is_terminal:
                wakeups.announce(job)
        except LeaseLost:
            continue
        except (OperationalError, InterfaceError) as again:
            log.warning("ingest.left_to_sweeper", job=str(job.pk), error=str(again))


def _works_of(batch: Sequence[Piece]) -> list[Work]:
    return list(dict.fromkeys(piece.work for piece in batch))
