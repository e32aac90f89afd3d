"""From staging to the node volumes: whole batches of chunks, of one large upload or of many small ones.

The phases, in order: ``ingest.read``, and for each batch ``ingest.pin``, ``ingest.locate``, ``ingest.count``,
``ingest.write``, ``ingest.record``, then ``ingest.join`` if there are segments, and ``ingest.close``. A worker may die
in any of them: the next one begins the upload again, finds what is already there, and ends it.

Of a large body, segments are ingested while the rest still arrives, by whichever workers are free. The upload's own job
does what is left, helps with segments that nobody is at, waits for the others, and closes the content.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import structlog
from django.db import connection, transaction

from storage import phases
from storage.cluster.placement import acknowledgeable
from storage.cluster.topology import Topology
from storage.exceptions import IngestFailed, LeaseLost, StagingDamaged, TooFewReplicas
from storage.jobs import wakeups
from storage.jobs.turns import in_turn
from storage.models import Chunk, Content, Job, ManifestEntry, Segment, Upload
from storage.models.refusals import UNAVAILABLE
from storage.replicas.writing import Stored, store
from storage.services.ingest.work import STAGING_DAMAGED, Piece, Work, batches, begin, sparing_others, works_of
from storage.staging import files

log = structlog.get_logger(__name__)

CLAIM_JOBS = 64
CLAIM_BYTES = 16 << 20
ALONE_BYTES = 1 << 20  # claimed, below which two workers would only halve each other's batches
ALONE_SECONDS = 0.1  # for which one worker is left alone with little; longer, and a disk may hold it up
LOOK_AGAIN = 0.02  # seconds between two looks at the segments that other workers are at


class Claimed(IntEnum):
    """How much was there to do."""

    NOTHING = 0
    LITTLE = 1
    MUCH = 2


def run_all(until: float) -> None:
    """Ingest what is queued, batch by batch, until nothing is, or until a time of the monotonic clock.

    Two workers would only halve each other's batches of little: it is left to the one whose turn it is.
    """
    with in_turn("ingest") as is_mine:
        claimed = Claimed.MUCH
        while (claimed is Claimed.MUCH or (claimed and is_mine)) and time.monotonic() < until:
            claimed = run_queued(goes_on=is_mine)


def run_queued(*, goes_on: bool = False) -> Claimed:
    """Claim what is queued, as much as fits, and ingest it together.

    Args:
        goes_on: whether this worker looks again afterwards: nobody has to be woken for what comes meanwhile.
    """
    jobs = _claim(goes_on)
    if not jobs:
        return Claimed.NOTHING
    is_much = len(jobs) == CLAIM_JOBS or sum(job.size for job in jobs) >= ALONE_BYTES
    if is_much:
        wakeups.wake(Job.Queue.INGEST, hushed=goes_on)  # there may be more
    ingest(jobs)
    return Claimed.MUCH if is_much else Claimed.LITTLE


def _claim(goes_on: bool) -> list[Job]:
    if goes_on:
        wakeups.hush(Job.Queue.INGEST, ALONE_SECONDS)  # before the look: what comes after it waits for the next one
        if jobs := Job.objects.claim(Job.Queue.INGEST, most=CLAIM_JOBS, most_bytes=CLAIM_BYTES):
            return jobs
    wakeups.taken(Job.Queue.INGEST)  # and then the look: nobody was woken for what has just come
    return Job.objects.claim(Job.Queue.INGEST, most=CLAIM_JOBS, most_bytes=CLAIM_BYTES)


def ingest(jobs: Sequence[Job]) -> None:
    """Store the uploads of claimed jobs; each job ends, goes back to the queue, or is another worker's by now."""
    if not jobs:
        return
    works: list[Work] = []
    log.info("ingest.started", attempts={str(job.pk): job.attempts for job in jobs})
    try:
        for job in jobs:
            with sparing_others(job):
                works.append(begin(job))
        for batch in batches(works):
            _store_batch(batch)
        for work in works:
            if work.is_done:
                with sparing_others(work.job, work):
                    _join(work)
    except UNAVAILABLE as error:
        log.warning("ingest.database", error=str(error))
        connection.close()
        _put_back([job for job in jobs if not job.is_terminal], error, waiting_for=Job.Lack.DATABASE)
    except Exception as error:
        log.exception("ingest.failed", jobs=[str(job.pk) for job in jobs])
        _put_back([job for job in jobs if not job.is_terminal], error)


def _store_batch(batch: Sequence[Piece]) -> None:
    phases.enter("ingest.pin")
    data = {piece.chunk_hash: piece.data for piece in batch}
    wanted = {(p.work.upload.pk, p.chunk_hash): p.work.upload.replication_factor for p in batch}
    ids = Upload.objects.pin(wanted, {chunk_hash: len(chunk) for chunk_hash, chunk in data.items()})
    data = {chunk_hash: chunk for chunk_hash, chunk in data.items() if chunk_hash in ids}
    targets: dict[str, int] = {}
    for (_, chunk_hash), factor in wanted.items():
        targets[chunk_hash] = max(factor, targets.get(chunk_hash, 0))
    topology = Topology.recent()
    stored = store(topology, data, targets, operation="ingest")
    phases.enter("ingest.record")
    for work in works_of(batch):
        with sparing_others(work.job, work):
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
            raise TooFewReplicas(stored.lack or Job.Lack.NODES)
        work.replications.append(count)
        if work.is_distribution_whole:
            work.distribution[piece.chunk_hash] = [member.node_id for member in stored.holders[piece.chunk_hash]]


def _record(batch: Sequence[Piece], ids: dict[str, int]) -> None:
    """Manifest rows and progress, and the end of what is whole by now, in one commit.

    It carries every job's fencing token. Staging goes once it has happened (RACES 4).
    """
    works = [work for work in works_of(batch) if not work.over]
    if any(work.is_done for work in works):
        phases.enter("ingest.close")
    with transaction.atomic():
        # Contents before jobs, as everybody does: a deletion of the content is over or waits.
        contents = Content.objects.locked({work.content.pk for work in works if work.content})
        mine = Job.objects.heartbeat({work.job: len(work.replications) for work in works})
        for work in works:
            if work.job.pk not in mine or (work.content and work.content.pk not in contents):
                work.over = True
                log.info("ingest.lease_lost", job=str(work.job.pk))
        rows = []
        for piece in (piece for piece in batch if not piece.work.over):
            if piece.work.content:
                rows.append((piece.work.content.pk, piece.position, ids[piece.chunk_hash]))
            else:
                piece.work.ids.append(ids[piece.chunk_hash])
        ManifestEntry.record(rows)
        done = [work for work in works if work.is_done]
        _end_segments([work for work in done if not work.content])
        closed = _close({work: work.content for work in done if work.content and not work.segments})
    _end(closed)


def _end_segments(works: Sequence[Work]) -> None:
    """Keep what is known of the chunks of segments, for the job that closes the content."""
    results = {
        work.job: {
            "chunks": work.ids,
            "replications": work.replications,
            "factor": work.upload.replication_factor,
            "epoch": work.epoch,
        }
        for work in works
    }
    if results:
        Job.objects.succeed(results)
    for work in works:
        work.over = True


def _join(work: Work) -> None:
    """See to it that all segments are stored, and close the content.

    Raises:
        LeaseLost: the job is another worker's, or the file was deleted.
        TooFewReplicas: a segment lacks nodes or space.
        StagingDamaged: a segment's staged bytes are not what came in.
        IngestFailed: a segment has failed otherwise.
    """
    _await_segments(work)
    phases.enter("ingest.close")
    with transaction.atomic():
        content = work.content
        if content is None or not Content.objects.locked({content.pk}):
            raise LeaseLost("the file was deleted")
        rows = []
        results = Segment.objects.results(work.segments) if work.segments else {}
        for segment in work.segments:
            stored = results[segment.job_id]
            work.replications += stored["replications"]
            work.epoch = min(stored["epoch"], work.epoch) if work.epoch >= 0 else stored["epoch"]
            rows += [(content.pk, segment.position + place, row) for place, row in enumerate(stored["chunks"])]
        ManifestEntry.record(rows)
        closed = _close({work: content})
        if any(stored["factor"] > work.upload.replication_factor for stored in results.values()):
            # Fewer are wanted than when they were stored: what is surplus goes as it always does (RACES 9).
            Job.request(Job.Kind.REBALANCE, f"content {content.pk}", file_hash=content.file_hash, size=content.size)
            wakeups.on_commit(Job.Queue.MAINTENANCE)
    _end(closed)


def _await_segments(work: Work) -> None:
    """Do the segments that no worker is at, and wait for the others."""
    if not work.segments:
        return
    phases.enter("ingest.join")
    if Segment.objects.reopen(work.upload):
        wakeups.wake(Job.Queue.INGEST)
    taken: list[Job] = []
    while unstored := Segment.objects.unstored(work.segments):
        for job in unstored:
            _raise_for(job, tried=job in taken)
        if not Job.objects.heartbeat({work.job: len(work.replications)}):
            raise LeaseLost(str(work.job.pk))
        taken = Job.objects.claim_segment(work.upload)
        ingest(taken)
        if not taken:
            time.sleep(LOOK_AGAIN)


def _raise_for(segment: Job, *, tried: bool) -> None:
    """Pass on that a segment has failed, or that this worker has just tried it in vain."""
    error = segment.error or {}
    detail = str(error.get("detail"))
    if segment.state in (Job.State.FAILED, Job.State.CANCELLED):
        raise StagingDamaged(detail) if error.get("title") == STAGING_DAMAGED else IngestFailed(detail)
    if tried and segment.waiting_for:
        raise TooFewReplicas(segment.waiting_for)
    if tried and error:
        raise IngestFailed(detail)


def _close(works: Mapping[Work, Content]) -> list[Work]:
    """Turn contents ready, whose rows are locked; returns the uploads whose jobs were still this worker's."""
    if not works:
        return []
    whole = Content.objects.whole({content.pk for content in works.values()})
    for work, content in works.items():
        if content.pk not in whole:
            with sparing_others(work.job, work):
                raise IngestFailed("the manifest has a gap")
    sound = {work: content for work, content in works.items() if content.pk in whole}
    mine = Job.objects.succeed({work.job: _result(content) for work, content in sound.items()})
    closed = {work: content for work, content in sound.items() if work.job.pk in mine}
    Content.objects.become_ready({content.pk: work.health for work, content in closed.items()})
    pinned = Upload.objects.release(work.upload.pk for work in closed)
    if any(content.chunk_size != work.upload.piece_size for work, content in closed.items()):
        Chunk.objects.condemn_unreferenced(pinned)  # segments may have been cut otherwise than the content
    for work in works:
        work.over = True
    return list(closed)


def _result(content: Content) -> dict[str, Any]:
    return {"file_hash": content.file_hash, "size": content.size, "chunks": content.chunk_count}


def _end(works: Sequence[Work]) -> None:
    """After the commit: who waits for the upload is told where its chunks are, and the staged bytes go."""
    if not works:
        return
    wakeups.announce_with(
        {work.job: {"distribution": work.distribution} if work.is_distribution_whole else {} for work in works}
    )
    for work in works:
        files.discard(work.upload.pk)
    log.info("ingest.succeeded", files={str(work.job.pk): work.job.file_hash for work in works})


def _put_back(jobs: Sequence[Job], error: Exception, waiting_for: Job.Lack | None = None) -> None:
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
        except UNAVAILABLE as again:
            log.warning("ingest.left_to_sweeper", job=str(job.pk), error=str(again))
