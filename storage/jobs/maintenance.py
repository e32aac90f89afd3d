"""Ask for maintenance that one job can do completely, such as a census."""

from __future__ import annotations

from storage.jobs import wakeups
from storage.models import Job


def ensure(kind: Job.Kind, subject: str) -> Job:
    """Wake a worker for the open job of this kind and subject. If there is no open job, one is queued first."""
    job = Job.ensure(kind, subject)
    wakeups.on_commit(Job.Queue.MAINTENANCE)
    return job
