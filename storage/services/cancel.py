"""Cancel maintenance jobs. What a job has already done is kept, and its remaining work is not begun."""

from __future__ import annotations

import structlog
from django.db import transaction

from storage.cluster import topology
from storage.exceptions import InvalidRequest
from storage.models import Cluster, Job, Node

log = structlog.get_logger(__name__)


def cancel(job: Job) -> None:
    """End a maintenance job. The worker of the job stops at its next commit. If the job is a drain, the node is active
    again.

    Raises:
        InvalidRequest: the job has ended, or it stores an upload. The message says how an upload is ended.
    """
    if job.kind in (Job.Kind.INGEST, Job.Kind.INGEST_SEGMENT):
        raise InvalidRequest(
            "an upload is ended by deleting its file; a resumable one that has no file yet, by DELETE "
            "/uploads/<upload_id>"
        )
    with transaction.atomic():
        if not Job.cancel([job.pk]):
            job.refresh_from_db(fields=["state"])
            raise InvalidRequest(f"the job is {job.state}")
        if job.kind == Job.Kind.DRAIN:
            Node.objects.filter(node_id=job.subject, state=Node.State.DRAINING).update(state=Node.State.ACTIVE)
            Cluster.bump_topology()
    topology.forget()
    log.info("job.cancelled", job=str(job.pk), kind=job.kind)
