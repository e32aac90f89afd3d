"""Ask for maintenance that one job can do completely, such as a census."""

from __future__ import annotations

from django.db import transaction

from storage.jobs import wakeups
from storage.jobs.naming import name_of
from storage.models import Activity, Job


def ensure(kind: Job.Kind, subject: str) -> Job:
    """Wake a worker for the open job of this kind and subject. If there is no open job, one is queued first."""
    with transaction.atomic():
        job = Job.ensure(kind, subject)
        Activity.record(Activity.Action.MAINTAIN, name_of(job))
        wakeups.on_commit(Job.Queue.MAINTENANCE)
    return job
