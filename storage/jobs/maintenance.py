"""Asking for maintenance that one job does whole."""

from __future__ import annotations

from storage.jobs import wakeups
from storage.models import Job


def ensure(kind: Job.Kind, subject: str) -> Job:
    """Wake a worker for the open job of this kind and subject, which is queued first if there is none."""
    job = Job.ensure(kind, subject)
    wakeups.on_commit(Job.Queue.MAINTENANCE)
    return job
