"""Wait for a job on behalf of a client, and tell the client how the job ended, in the words of the API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from django.db import connection

from storage.exceptions import ClusterUnavailable, IngestFailed, JobFailed, OutOfSpace
from storage.jobs import wakeups
from storage.models import Job

FORGOTTEN = "the database was restarted, and has forgotten the request: send it again"
NAMES: Mapping[str, str] = {Job.Kind.INGEST: "upload", Job.Kind.INGEST_SEGMENT: "upload"}
"""Kind of job → the word for it in messages to clients, for the kinds whose own names clients do not know."""


def wait(job_id: uuid.UUID, seconds: float) -> Job | Mapping[str, Any]:
    """Wait for at most ``seconds`` until the job has ended, or until it waits for nodes or space.

    Redis announces the end of a job. PostgreSQL is asked too, at least once a second, in case Redis loses the
    announcement.

    Returns:
        The message that was announced with the job's success, or the job as it is now.

    Raises:
        ClusterUnavailable: PostgreSQL has crashed and lost the job, whose commit had not waited for the disk.
    """
    deadline = time.monotonic() + seconds
    pause = 0.0
    while True:
        connection.close()  # The connection goes back to the pool, for other threads to use while this thread waits.
        left = max(0.0, deadline - time.monotonic())
        message = wakeups.await_change(job_id, min(1.0, left)) if left else None
        if message:  # A message that is not empty is sent after the commit of the job's success.
            return message
        job = Job.objects.filter(pk=job_id).first()
        if job is None:
            raise ClusterUnavailable(FORGOTTEN)
        left = deadline - time.monotonic()
        if job.is_terminal or job.waiting_for or left <= 0:
            return job
        if message is None:
            time.sleep(min(pause, left))
        pause = min(0.5, pause + 0.05)


def raise_for(job: Job) -> None:
    """Raise the error for the client of a job that has not succeeded.

    Raises:
        ClusterUnavailable: the job waits for nodes, or for another service.
        OutOfSpace: the job waits for space.
        IngestFailed: an upload has failed or was cancelled.
        JobFailed: any other job has failed or was cancelled.
    """
    if job.state == Job.State.SUCCEEDED:
        return
    name = NAMES.get(job.kind, str(job.kind))
    if not job.is_terminal and job.waiting_for == Job.Lack.SPACE:
        raise OutOfSpace("no node has room left")
    # A job that was cancelled while it waited keeps its ``waiting_for``, but that is not the reason why it has ended.
    if not job.is_terminal and job.waiting_for:
        raise ClusterUnavailable(f"the {name} lacks {job.waiting_for}")
    how = "was cancelled" if job.state == Job.State.CANCELLED else "has failed"
    detail = str((job.error or {}).get("detail", f"the {name} {how}"))
    raise IngestFailed(detail) if name == "upload" else JobFailed(detail)
