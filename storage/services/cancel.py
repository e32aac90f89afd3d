"""Cancel jobs. The maintenance that a job has done stays done, and the rest is not begun. An upload is taken back."""

from __future__ import annotations

import uuid

import structlog
from django.db import transaction

from storage.cluster import topology
from storage.exceptions import NotPossible
from storage.jobs import wakeups
from storage.jobs.naming import name_of
from storage.models import Activity, Chunk, Cluster, Content, Job, Node, Resumable, Upload
from storage.staging import files

log = structlog.get_logger(__name__)


def cancel(job: Job) -> None:
    """End a job. Its worker stops at its next commit.

    If the job is a drain, its node is active again. If the job stores an upload, the upload's bytes go, and so does its
    file, unless another upload has made the file or may still make it.

    Raises:
        NotPossible: the job has ended, or it stores a segment of an upload, and the upload must be cancelled instead.
    """
    if job.kind == Job.Kind.INGEST_SEGMENT:
        raise NotPossible("this job stores a part of an upload: cancel the upload")
    staged: set[uuid.UUID] = set()
    with transaction.atomic():
        if job.kind == Job.Kind.INGEST:
            staged = _take_back(job)
        else:
            _end(job)
        if job.kind == Job.Kind.DRAIN:
            Node.objects.filter(node_id=job.subject, state=Node.State.DRAINING).update(state=Node.State.ACTIVE)
            Cluster.bump_topology()
        Activity.record(Activity.Action.CANCEL_JOB, name_of(job), owner_id=job.owner_id, detail=str(job.pk))
    for upload_id in staged:
        files.discard(upload_id)
    topology.forget()
    wakeups.announce(job)
    log.info("job.cancelled", job=str(job.pk), kind=job.kind)


def _end(job: Job) -> None:
    if not Job.cancel([job.pk]):
        job.refresh_from_db(fields=["state"])
        raise NotPossible(f"the job is {job.state}")


def _take_back(job: Job) -> set[uuid.UUID]:
    """Cancel the job of an upload and release the upload; return the ids of its staged files.

    Resumable uploads are locked first, then contents, then jobs (RACES 31, 41).
    """
    arrived = list(Resumable.objects.filter(job=job).values_list("pk", flat=True))
    Resumable.objects.locked(arrived)
    of_job = Upload.objects.filter(jobs=job)
    content = Content.objects.select_for_update().filter(pk__in=of_job.values("content")).first()
    _end(job)
    upload = of_job.first()
    upload_ids = {*arrived, *([upload.pk] if upload else [])}
    chunk_ids = Upload.objects.release(upload_ids)
    if upload is not None and content is not None:
        chunk_ids |= upload.give_up(content)
    Chunk.objects.condemn_unreferenced(chunk_ids)
    return upload_ids
