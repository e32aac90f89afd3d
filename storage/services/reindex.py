"""Make the index of a node of packs again from its packs. The store does this by itself when an index is damaged."""

from __future__ import annotations

import structlog

from storage.cluster.topology import Topology
from storage.exceptions import InvalidRequest
from storage.jobs import wakeups
from storage.models import Job
from storage.volumes import PackVolume, Totals

log = structlog.get_logger(__name__)


def plan(node_id: str) -> Totals:
    """Count the records that the index of the node has now.

    Raises:
        NoSuchNode: there is no such node.
        InvalidRequest: the node has no index.
        VolumeError: the node does not answer, or its index cannot be read.
    """
    return _volume(node_id).totals()


def reindex(node_id: str) -> tuple[Job, Totals]:
    """Make the index again, and queue the comparison of the node with the other nodes.

    This reads a block of each record, which may take minutes. So this function calls the volume directly, and not
    through its lane, which has a time limit. Other processes find the node offline during this time.

    Returns:
        The job, and the totals of the new index.

    Raises:
        NoSuchNode: there is no such node.
        InvalidRequest: the node has no index.
        VolumeError: the node does not answer, or a pack cannot be read.
    """
    totals = _volume(node_id).rebuild_index()
    job = Job.ensure(Job.Kind.RECONCILE, node_id)
    wakeups.wake(Job.Queue.MAINTENANCE)
    log.info("index.remade", node=node_id, records=totals.records)
    return job, totals


def _volume(node_id: str) -> PackVolume:
    volume = Topology.load().member(node_id).lane.volume
    if not isinstance(volume, PackVolume):
        message = f"{node_id} has one file for each copy, and no index"
        raise InvalidRequest(message, {"node_id": [message]})
    return volume
