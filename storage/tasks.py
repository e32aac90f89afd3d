"""Celery tasks: each makes one service call. A message only wakes a worker; the Job table says what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from threading import Lock
from typing import Any

import structlog
from celery import shared_task
from django.db import connection

from storage.cluster import clocks, generations
from storage.cluster.topology import Topology
from storage.conf import configuration
from storage.exceptions import ForeignDatabase, LeaseLost, StorageError, TurnEnded, VolumeError
from storage.jobs import wakeups
from storage.models import Job
from storage.models.clock import Clock
from storage.models.refusals import UNAVAILABLE
from storage.queues import Queue
from storage.services import (
    adopt,
    audit,
    drain,
    health,
    history,
    ingest,
    probe,
    rebalance,
    rebalance_all,
    rebuild,
    reclaim,
    repair,
    survey,
    sweep,
    trace,
    verify,
)
from storage.tracking import batches
from storage.tracking.store import ShadowLost, StoreUnavailable

log = structlog.get_logger(__name__)

OVERDUE = timedelta(seconds=0.5)  # A job that has waited longer than this is overdue: its message was probably lost.
# After this many seconds, a task that still finds work wakes a worker for this work and ends. A worker that was told to
# stop can stop then.
SHIFT = 60.0
RECLAIMING = 25.0  # A round of reclaim ends after this many seconds. The next round begins 30 s after this one began.
LISTENING = 1.0  # An ingest task waits this many seconds for more work. A worker that has to stop gets more time.

# The function for each kind of maintenance job. docs/recipes/maintenance-job.md says what else a new kind needs.
WORK: Mapping[str, Callable[[Job], Any]] = {
    Job.Kind.REBALANCE: rebalance.rebalance,
    Job.Kind.REPAIR: repair.repair,
    Job.Kind.REBUILD_SKETCH: rebuild.rebuild,
    Job.Kind.REFRESH_HEALTH: verify.refresh_health,
    Job.Kind.REPAIR_ALL: repair.repair_all,
    Job.Kind.TRACE: trace.trace,
    Job.Kind.RECONCILE: audit.reconcile,
    Job.Kind.DRAIN: drain.drain,
    Job.Kind.RECLAIM: lambda job: reclaim.reclaim_all(job, configuration().reclaim_grace),
    Job.Kind.REBALANCE_ALL: rebalance_all.rebalance_all,
    Job.Kind.CENSUS: audit.take_census,
    Job.Kind.AUDIT: audit.audit,
    Job.Kind.ADOPT: adopt.adopt,
}


# A process runs at most one ingest and one maintenance task at a time. A message begins the task, or the process itself
# after a look at the job table (``occsite.lookout``).
_ingesting, _maintaining = Lock(), Lock()


@shared_task(name="storage.ingest")
def ingest_queued() -> None:
    """Ingest queued uploads until no more arrive, or until ``SHIFT`` is over."""
    if _ingesting.acquire(blocking=False):
        try:
            _ingest_queued()
        finally:
            _ingesting.release()


@shared_task(name="storage.look_for_uploads")
def look_for_uploads() -> None:
    """Ingest uploads that no message has brought to a worker."""
    if not _ingesting.locked() and _has_overdue(Job.Queue.INGEST):
        ingest_queued()


@shared_task(name="storage.look_for_jobs")
def look_for_jobs() -> None:
    """Do maintenance jobs that no message has brought to a worker."""
    if not _maintaining.locked() and _has_overdue(Job.Queue.MAINTENANCE):
        maintain()


def _has_overdue(queue: Queue) -> bool:
    return Job.objects.queued(queue).exclude(not_before__gt=Clock() - OVERDUE, not_before__lte=Clock()).exists()


def _ingest_queued() -> None:
    shift_ends = time.monotonic() + SHIFT
    while True:
        ingest.run_all(shift_ends)
        if time.monotonic() > shift_ends:
            wakeups.taken(Job.Queue.INGEST)  # This allows wake-ups again, which ``ingest.run_all`` may have suppressed.
            wakeups.wake(Job.Queue.INGEST)
            break
        if not wakeups.listen(Job.Queue.INGEST, LISTENING):
            break


@shared_task(name="storage.maintain")
def maintain() -> None:
    """Do maintenance jobs, one after the other, until none is queued, or until ``SHIFT`` is over.

    All workers together do one maintenance job at a time.
    """
    if _maintaining.acquire(blocking=False):
        try:
            _maintain()
        finally:
            _maintaining.release()


def _maintain() -> None:
    if Job.objects.filter(queue=Job.Queue.MAINTENANCE, state=Job.State.RUNNING).exists():
        return
    shift_ends = time.monotonic() + SHIFT
    wakeups.taken(Job.Queue.MAINTENANCE)
    while jobs := Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0):
        for job in jobs:
            _carry_out(job)
        if time.monotonic() > shift_ends:
            wakeups.wake(Job.Queue.MAINTENANCE)
            break


@shared_task(name="storage.sweep")
def sweep_once() -> None:
    sweep.sweep()


@shared_task(name="storage.probe")
def probe_once() -> None:
    probe.probe()


@shared_task(name="storage.compare_clocks")
def compare_clocks(program: str) -> None:
    clocks.report(program)


@shared_task(name="storage.begin_generation")
def begin_generation() -> None:
    """Begin a generation when the maintenance worker stops: older backups of the database are then recognised."""
    try:
        batches.wait_for_batches()
        generations.begin(Topology.load())
    except UNAVAILABLE as error:
        log.warning("generation.not_begun", error=str(error))


@shared_task(name="storage.survey")
def survey_once() -> None:
    survey.survey()


@shared_task(name="storage.watch_health")
def watch_health() -> None:
    health.watch()


@shared_task(name="storage.sample")
def sample_once() -> None:
    history.take()


@shared_task(name="storage.reclaim")
def reclaim_once() -> None:
    """Make passes of reclaim while one pass is not enough, at most for ``RECLAIMING`` seconds."""
    ends = time.monotonic() + RECLAIMING
    try:
        while reclaim.reclaim(configuration().reclaim_grace).was_capped and time.monotonic() < ends:
            continue
    except ForeignDatabase as error:
        log.error("reclaim.refused", error=str(error))


def _carry_out(job: Job) -> None:
    """Run a maintenance job; an error delays or ends this job only."""
    try:
        try:
            result = WORK[job.kind](job)
            job.succeed(result if isinstance(result, dict) else {"contents": result})
            log.info("job.succeeded", job=str(job.pk), kind=job.kind)
        except TurnEnded:
            job.end_turn()
        except (VolumeError, StoreUnavailable, ShadowLost) as error:
            log.warning("job.waits", job=str(job.pk), kind=job.kind, error=repr(error))
            job.wait(Job.Lack.NODES if isinstance(error, VolumeError) else Job.Lack.REDIS)
        except (LeaseLost, *UNAVAILABLE):
            raise
        except StorageError as error:
            log.warning("job.retries", job=str(job.pk), kind=job.kind, error=repr(error))
            job.retry(type(error).__name__, str(error))
        except Exception as error:
            log.exception("job.failed", job=str(job.pk), kind=job.kind)
            job.retry("Failed", repr(error))
    except LeaseLost:
        log.info("job.lease_lost", job=str(job.pk), kind=job.kind)
    except UNAVAILABLE as error:
        # The job's lease will end, and the sweep then puts the job back into the queue.
        log.warning("job.database", job=str(job.pk), error=str(error))
        connection.close()
    wakeups.announce(job)
