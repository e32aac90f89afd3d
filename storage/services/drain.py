"""Empty a node, so that it can be removed.

A draining node takes no new copies, and its copies do not count. So every chunk on the node gets another copy
elsewhere, and then its copy on the node is removed. When a listing finds no copy, the node is retired. The phases:
``drain.locate``, ``drain.count``, ``drain.write``, ``drain.trim``, ``drain.retire``.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import transaction

from storage import counters, phases
from storage.cluster.topology import Member, Topology
from storage.cluster.topology import forget as forget_topology
from storage.counters import Event
from storage.exceptions import InvalidRequest, OutOfSpace, VolumeError, VolumeOffline
from storage.jobs import maintenance
from storage.models import Cluster, Content, Job, Node
from storage.replicas import census, moving, orphans
from storage.replicas.reporting import report
from storage.tracking import batches
from storage.tracking.store import StoreUnavailable, store_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Plan:
    """The work that emptying a node needs.

    Attributes:
        node_id: the node.
        replicas: the number of copies on the node.
        bytes: the size of the copies on the node.
        to_write: bytes to write elsewhere first, for chunks that would otherwise be short.
        orphans: the number of copies on the node that the database does not know. Copies that the database does not
            know are removed without a new copy elsewhere.
    """

    node_id: str
    replicas: int
    bytes: int
    to_write: int
    orphans: int


def plan(node_id: str) -> Plan:
    """List the node and work out what a drain would do. This function changes nothing.

    Raises:
        NoSuchNode: there is no such node.
        InvalidRequest: the node is offline, or too few nodes would be left.
        OutOfSpace: the other nodes have too little room.
        VolumeOffline: the node cannot be listed.
    """
    topology = Topology.load()
    member = topology.member(node_id)
    replicas = size = to_write = orphans = 0
    for prefix in census.prefixes(topology):
        listing = census.take(topology, prefix)
        if member in listing.silent:
            raise VolumeOffline(f"{node_id} cannot be listed")
        for entry in listing.entries.values():
            if member in entry.holders:
                replicas, size = replicas + 1, size + entry.size
                to_write += entry.size * (len([m for m in entry.counting if m != member]) < entry.target)
        orphans += sum(holder == member for copies in listing.orphans.values() for holder, _ in copies)
    _require_possible(topology, member, to_write)
    return Plan(node_id, replicas, size, to_write, orphans)


def request(node_id: str) -> Job:
    """Begin to drain the node. A drain of the node that is already under way continues.

    Raises:
        NoSuchNode: there is no such node.
        InvalidRequest: the node is offline, or too few nodes would be left.
        OutOfSpace: the other nodes have too little room.
    """
    topology = Topology.load()
    member = topology.member(node_id)
    _require_possible(topology, member, member.stored_bytes)
    with transaction.atomic():
        if Node.objects.filter(node_id=node_id, state=Node.State.ACTIVE).update(state=Node.State.DRAINING):
            Cluster.bump_topology()
        job = maintenance.ensure(Job.Kind.DRAIN, node_id)
    forget_topology()
    log.info("drain.requested", job=str(job.pk), node=node_id)
    return job


def drain(job: Job) -> dict[str, Any]:
    """Carry out a drain job, whose subject is a node id; returns the copies ``moved`` and the number of ``passes``.

    Raises:
        LeaseLost: the job is another worker's, or was cancelled.
        TurnEnded: more urgent work waits.
        VolumeOffline: the node does not answer.
        VolumeError: copies are left on the node after a pass; the next attempt makes another pass.
    """
    result: dict[str, Any] = {"moved": 0, "passes": 0} | (job.result or {})
    job.result = result
    prefixes = census.prefixes(Topology.load(), job.total)
    for step in job.steps(len(prefixes)):
        _empty_range(job, prefixes[step])
    result["passes"] += 1
    if not _retire(job):
        # Copies are left on the node: often other nodes lack room, or no good copy could be read. A retry begins at the
        # first range.
        job.done = 0
        job.progress(done=0)
        raise VolumeError(f"{job.subject} is not empty yet")
    log.info("drain.done", job=str(job.pk), node=job.subject, moved=result["moved"])
    return result


def _empty_range(job: Job, prefix: str) -> None:
    topology = Topology.load()
    member = topology.member(str(job.subject))
    listing = census.take(topology, prefix)
    if member in listing.silent:
        raise VolumeOffline(f"{member.node_id} cannot be listed")
    unknown = {h: size for h, copies in listing.orphans.items() for holder, size in copies if holder == member}
    orphans.condemn(topology, unknown)
    for chunk_hash, entry in listing.entries.items():
        if member in entry.misfits:
            report(chunk_hash)
    entries = {h: entry for h, entry in listing.entries.items() if member in entry.holders}
    holders = {h: entry.holders for h, entry in entries.items()} | {h: [member] for h in unknown}
    targets = {h: entry.target for h, entry in entries.items()} | dict.fromkeys(unknown, 0)
    for batch in moving.batches(moving.plan(topology, holders, targets)):
        moved = moving.carry_out(topology, batch, operation="drain")
        counters.add(Event.REPLICAS_MOVED, moved.added)
        (job.result or {})["moved"] += moved.removed
        job.progress()
        job.make_way()


def _retire(job: Job) -> bool:
    """Retire the job's node if no copy is left on it; returns True if the node is retired now.

    Raises:
        LeaseLost: the job was cancelled during the last listing, and its node is active again.
    """
    node_id = str(job.subject)
    # After this wait, batches that chose this node before the drain began have ended. Later batches choose other nodes.
    batches.wait_for_batches()
    phases.enter("drain.retire")
    topology = Topology.load()
    # An earlier attempt may have retired the node, and its worker may have died before the job's end was committed.
    if Node.objects.filter(node_id=node_id).exclude(state=Node.State.RETIRED).exists():
        lane = topology.member(node_id).lane
        if lane.call(lambda: next(lane.volume.replicas(), None)) is not None:
            return False
        with transaction.atomic():
            job.progress()
            Node.retire(node_id)
    forget_topology()
    with suppress(StoreUnavailable):
        store_of(topology.cluster).forget(node_id)
    return True


def _require_possible(topology: Topology, member: Member, size: int) -> None:
    if not member.online:
        message = f"{member.node_id} is offline: what cannot be listed cannot be emptied"
        raise InvalidRequest(message, {"node_id": [message]})
    left = [other for other in topology.members if other.counts and other != member]
    most = Content.largest_target()
    if len(left) < max(most, 1):
        message = f"{len(left)} active nodes would be left, fewer than the {max(most, 1)} replicas that files have"
        raise InvalidRequest(message, {"node_id": [message]})
    free = {}
    for other in left:
        with suppress(VolumeError):
            space = other.lane.call(other.lane.volume.space)
            free[space.device] = space.free
    if sum(free.values()) < size:
        raise OutOfSpace(f"the other nodes have {sum(free.values())} bytes of room for {size}")
