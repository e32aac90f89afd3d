"""Ingest claimed uploads from beginning to end: their batches, and the segments of large bodies."""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog
from django.db import connection, transaction

from storage import phases
from storage.exceptions import IngestFailed, LeaseLost, StagingDamaged, TooFewReplicas
from storage.jobs import wakeups
from storage.models import Content, Job, ManifestEntry, Segment
from storage.models.refusals import UNAVAILABLE
from storage.services.ingest.batch import close, end, store_batch
from storage.services.ingest.work import STAGING_DAMAGED, Work, batches, begin, sparing_others

log = structlog.get_logger(__name__)

LOOK_AGAIN = 0.02  # Seconds between two looks at the segments that other workers are storing.


def ingest(jobs: Sequence[Job]) -> None:
    """Store the uploads of claimed jobs. Each job then has ended, is in the queue again, or is another worker's."""
    if not jobs:
        return
    works: list[Work] = []
    log.info("ingest.started", attempts={str(job.pk): job.attempts for job in jobs})
    try:
        for job in jobs:
            with sparing_others(job):
                works.append(begin(job))
        for batch in batches(works):
            store_batch(batch)
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


def _join(work: Work) -> None:
    """Wait until all segments are stored, and close the content.

    Raises:
        LeaseLost: the job is another worker's, or the file was deleted.
        TooFewReplicas: a segment lacks nodes or space.
        StagingDamaged: a segment's staged bytes are not the bytes that arrived.
        IngestFailed: a segment has failed for another reason.
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
        closed = close({work: content})
        if any(stored["factor"] > work.upload.replication_factor for stored in results.values()):
            # The segments were stored with more replicas than are wanted now. A rebalance trims the surplus replicas
            # (RACES 9).
            Job.request(Job.Kind.REBALANCE, f"content {content.pk}", file_hash=content.file_hash, size=content.size)
            wakeups.on_commit(Job.Queue.MAINTENANCE)
    end(closed)


def _await_segments(work: Work) -> None:
    """Store the segments that no worker has, and wait for the other segments."""
    if not work.segments:
        return
    phases.enter("ingest.join")
    if Segment.objects.reopen(work.upload):
        wakeups.wake(Job.Queue.INGEST)
    claims: list[Job] = []
    while unstored := Segment.objects.unstored(work.segments):
        for job in unstored:
            _raise_for(job, tried=job in claims)
        if not Job.objects.heartbeat({work.job: len(work.replications)}):
            raise LeaseLost(str(work.job.pk))
        claims = Job.objects.claim_segment(work.upload)
        ingest(claims)
        if not claims:
            time.sleep(LOOK_AGAIN)


def _raise_for(segment: Job, *, tried: bool) -> None:
    """Raise an error if a segment has failed, or if this worker has just tried to store it without success."""
    error = segment.error or {}
    detail = str(error.get("detail"))
    if segment.state in (Job.State.FAILED, Job.State.CANCELLED):
        raise StagingDamaged(detail) if error.get("title") == STAGING_DAMAGED else IngestFailed(detail)
    if tried and segment.waiting_for:
        raise TooFewReplicas(segment.waiting_for)
    if tried and error:
        raise IngestFailed(detail)


def _put_back(jobs: Sequence[Job], error: Exception, waiting_for: Job.Lack | None = None) -> None:
    """Put jobs back into the queue after an error that stopped all these jobs.

    If PostgreSQL refuses this change too, the jobs' leases run out and the sweeper puts the jobs back.
    """
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
