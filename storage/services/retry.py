"""Try again a job that has failed or was cancelled."""

from __future__ import annotations

import structlog
from django.db import transaction
from django.db.models import F

from storage.exceptions import NotPossible
from storage.jobs import wakeups
from storage.jobs.naming import name_of
from storage.models import Activity, Job, Node
from storage.models.clock import Clock

log = structlog.get_logger(__name__)


def retry(job: Job) -> Job:
    """Queue the work of a job once more.

    The staged bytes of a failed upload are kept for a week, so the same job stores them. For maintenance work a new job
    is queued, unless a job for this work is queued already.

    Returns:
        The job that does the work.

    Raises:
        NotPossible: the job goes on or has succeeded; or its upload, or the drain of its node, has been given up.
    """
    if job.state not in (Job.State.FAILED, Job.State.CANCELLED):
        raise NotPossible(f"the job is {job.state}")
    with transaction.atomic():
        again = _requeued(job) if job.subject is None else _requested(job, job.subject)
        Activity.record(Activity.Action.RETRY_JOB, name_of(job), owner_id=job.owner_id, detail=str(again.pk))
        wakeups.on_commit(Job.Queue(again.queue))
    log.info("job.retried", job=str(job.pk), again=str(again.pk), kind=job.kind)
    return again


def _requeued(job: Job) -> Job:
    kept = Job.objects.filter(pk=job.pk, state=Job.State.FAILED, upload__isnull=False)
    changed = kept.update(
        state=Job.State.QUEUED, attempts=0, error=None, finished_at=None, not_before=Clock(), fence=F("fence") + 1
    )
    job.refresh_from_db()
    if not changed:
        is_open = not job.is_terminal  # Another retry was faster.
        raise NotPossible(
            f"the job is {job.state}" if is_open else "the bytes of this upload are gone: send them again"
        )
    return job


def _requested(job: Job, subject: str) -> Job:
    if job.kind == Job.Kind.DRAIN and not Node.objects.filter(node_id=subject, state=Node.State.DRAINING).exists():
        raise NotPossible(f"{subject} is not being drained any more: drain it")
    return Job.request(Job.Kind(job.kind), subject, owner_id=job.owner_id, file_hash=job.file_hash, size=job.size)
