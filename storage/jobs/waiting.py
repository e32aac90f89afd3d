"""Waiting for a job on behalf of a client, and telling the client in its own words how the job ended."""

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
"""What clients call a job, where that is not its kind."""


def wait(job_id: uuid.UUID, seconds: float) -> Job | Mapping[str, Any]:
    """Wait until the job has ended or waits for nodes or space, for so many seconds at most.

    Redis announces the end; PostgreSQL is asked behind it, at least every second, in case Redis forgets.

    Returns:
        What was announced with its success, or the job as it is now.

    Raises:
        ClusterUnavailable: PostgreSQL has crashed, and forgotten it: its commit waits for no disk.
    """
    deadline = time.monotonic() + seconds
    pause = 0.0
    while True:
        connection.close()  # back to the pool: who waits must not keep others from PostgreSQL
        left = max(0.0, deadline - time.monotonic())
        message = wakeups.await_change(job_id, min(1.0, left)) if left else None
        if message:  # said after the commit, of its success alone
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
    """Turn a job that did not succeed into the error that its client is told.

    Raises:
        ClusterUnavailable: it waits for nodes.
        OutOfSpace: it waits for space.
        IngestFailed: an upload has failed or was cancelled.
        JobFailed: any other job has failed or was cancelled.
    """
    if job.state == Job.State.SUCCEEDED:
        return
    name = NAMES.get(job.kind, str(job.kind))
    if not job.is_terminal and job.waiting_for == Job.Lack.SPACE:
        raise OutOfSpace("no node has room left")
    # A job that is cancelled while it waits keeps what it waited for, which is not why it has ended.
    if not job.is_terminal and job.waiting_for:
        raise ClusterUnavailable(f"the {name} lacks {job.waiting_for}")
    how = "was cancelled" if job.state == Job.State.CANCELLED else "has failed"
    detail = str((job.error or {}).get("detail", f"the {name} {how}"))
    raise IngestFailed(detail) if name == "upload" else JobFailed(detail)
