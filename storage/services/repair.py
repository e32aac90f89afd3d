"""Mend one chunk: judge its copies, quarantine the bad ones, and bring it back to its target.

The phases: ``repair.judge``, ``repair.locate``, ``repair.count``, ``repair.write``.
"""

from __future__ import annotations

import structlog

from storage import phases
from storage.models import Chunk, Content, Job
from storage.replicas.judging import judge
from storage.replicas.writing import store
from storage.topology import Topology

log = structlog.get_logger(__name__)


def repair(job: Job) -> dict[str, int]:
    """Carry out a repair job, whose subject is a chunk hash; returns what it did.

    Raises:
        LeaseLost: the job is another worker's.
    """
    chunk = Chunk.objects.filter(hash=job.subject).first()
    if chunk is None:
        return {"quarantined": 0, "good": 0}
    phases.enter("repair.judge")
    topology = Topology.load()
    good, data, quarantined = judge(topology, chunk.hash, chunk.size)
    target = Chunk.objects.targets([chunk.pk])[chunk.pk]
    job.progress(done=0, total=1)
    if data is not None and target:
        good = store(topology, {chunk.hash: data}, {chunk.hash: target}, operation="repair").holders[chunk.hash]
    # The summaries of the contents that have this chunk are no longer exact.
    if Content.objects.filter(entries__chunk=chunk).update(health_epoch=-1):
        Job.request(Job.Kind.REFRESH_HEALTH, "all")
    log.info("repair.done", job=str(job.pk), chunk=chunk.hash, quarantined=quarantined, good=len(good))
    return {"quarantined": quarantined, "good": len(good)}
