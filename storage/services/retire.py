"""Give up a node that will not come back, because its disk is dead. A node whose disk still works is drained."""

from __future__ import annotations

from contextlib import suppress

import structlog
from django.db import transaction

from storage.cluster.topology import Member, Topology
from storage.cluster.topology import forget as forget_topology
from storage.exceptions import InvalidRequest, VolumeOffline
from storage.jobs import wakeups
from storage.models import Activity, Content, Job, Node
from storage.tracking.store import StoreUnavailable, store_of

log = structlog.get_logger(__name__)


def plan(node_id: str) -> int:
    """Count the contents that would be lost with the node: those with a chunk that has no copy on another node.

    Raises:
        NoSuchNode: there is no such node.
        InvalidRequest: the node still answers, so it has to be drained instead.
        VolumeUnasked: this process could not ask the node.
    """
    _require_gone(Topology.load().member(node_id))
    return Content.objects.filter(state=Content.State.READY, retrievable=False).count()


def retire(node_id: str) -> Job:
    """Take a dead node out of the cluster, and queue the repair of the chunks that it held.

    From now on nothing waits for the node to come back. A download of a file whose last copies were on this node
    answers 410. Reclaim deletes the rows of condemned chunks that the node may have held.

    Raises:
        NoSuchNode: there is no such node.
        InvalidRequest: the node still answers, so it has to be drained instead.
        VolumeUnasked: this process could not ask the node.
    """
    topology = Topology.load()
    _require_gone(topology.member(node_id))
    with transaction.atomic():
        Node.retire(node_id)
        job = Job.ensure(Job.Kind.REPAIR_ALL, "all")
        Activity.record(Activity.Action.RETIRE_NODE, node_id)
    forget_topology()
    with suppress(StoreUnavailable):
        store_of(topology.cluster).forget(node_id)
    wakeups.wake(Job.Queue.MAINTENANCE)
    log.warning("node.retired", node=node_id, repair=str(job.pk))
    return job


def _require_gone(member: Member) -> None:
    """Ask for the identity of the node's volume, even if the volume failed just now (its lane's breaker is open).

    Raises:
        InvalidRequest: the volume answers.
        VolumeUnasked: this process lacks threads or descriptors to ask the volume, which may be well.
    """
    with suppress(VolumeOffline):
        if member.lane.look(member.lane.volume.identity).same_volume(member.identity):
            message = f"{member.node_id} is there: drain it"
            raise InvalidRequest(message, {"node_id": [message]})
