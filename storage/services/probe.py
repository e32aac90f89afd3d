"""Look after the nodes and their sketches: which nodes answer, which are full, and which sketches are not trusted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta

import structlog
from django.db import transaction
from django.db.models import Max, Q

from storage.cluster import generations
from storage.cluster.topology import Member, Topology
from storage.cluster.topology import forget as forget_topology
from storage.conf import configuration
from storage.exceptions import VolumeError, VolumeUnasked
from storage.jobs import wakeups
from storage.models import Cluster, Content, Job, Node, clock
from storage.models.clock import Clock
from storage.tracking import trust
from storage.tracking.store import StoreUnavailable
from storage.tracking.trust import Reason
from storage.volumes import Space
from storage.volumes.base import Lack

log = structlog.get_logger(__name__)

WEIGHT_STEPS = 16
ROUND = 5.0  # Seconds per round.
# For this long after a rebuild of a node's sketch, registers that look wrong do not queue another rebuild of it.
INSPECTION_PAUSE = timedelta(minutes=10)


def probe() -> None:
    """Make one round: record which nodes have changed, and queue the work that is needed then."""
    topology = Topology.load()
    sights = {member.node_id: _look(member) for member in topology.members}
    changed = [m for m in topology.members if m.online != (sights[m.node_id] is not None)]
    if changed:
        _record_change({member.node_id: sights[member.node_id] is not None for member in changed})
    for member in topology.members:
        sight = sights[member.node_id]
        if sight is not None and (sight.weight, sight.writable) != (member.weight, member.writable):
            Node.objects.filter(node_id=member.node_id).update(weight=sight.weight, writable=sight.writable)
            log.info("node.changed", node=member.node_id, weight=sight.weight, writable=sight.writable, lack=sight.lack)
    spaces = {node_id: sight.space for node_id, sight in sights.items() if sight and sight.space}
    Node.record_file_systems({node_id: (space.device, space.total) for node_id, space in spaces.items()})
    forget_topology()
    topology = Topology.load()
    generations.keep_up(topology)
    generations.recognise(topology)
    _queue_rebuilds(topology)
    _queue_audit(topology)
    _queue_census(topology)
    if Content.objects.filter(state=Content.State.READY, health_epoch__lt=topology.cluster.topology_epoch).exists():
        Job.request(Job.Kind.REFRESH_HEALTH, "all")
    if Job.objects.queued(Job.Queue.MAINTENANCE).exists():
        wakeups.wake(Job.Queue.MAINTENANCE)


@dataclass(frozen=True)
class Sight:
    """The state of a node that answers.

    Attributes:
        weight: the share of the node's file system that is free, rounded to sixteenths; 0 if the node is full.
        writable: True if the volume of the node can be written to.
        lack: the resource that a full node lacks: ``"bytes"`` or ``"files"``; otherwise empty.
        space: the room on the node's file system; None if this process could not ask.
    """

    weight: float
    writable: bool
    lack: Lack = ""
    space: Space | None = None


def _look(member: Member) -> Sight | None:
    """Look at a node; None if it does not answer."""
    try:
        space = member.look()
    except VolumeUnasked as error:
        log.warning("node.unasked", node=member.node_id, error=str(error))
        return Sight(member.weight, member.writable) if member.online else None
    except VolumeError:
        return None
    if space.is_full:
        return Sight(0.0, space.writable, space.lack, space)
    if space.writable:
        _keep_spare(member)
    # The weight is coarse, so that the row changes seldom.
    weight = max(1, round(WEIGHT_STEPS * space.free / space.total)) / WEIGHT_STEPS
    return Sight(weight, space.writable, space=space)


def _keep_spare(member: Member) -> None:
    """Give the volume its spare back once a removal on the full disk has used it up."""
    try:
        member.lane.call(member.lane.volume.keep_spare)
    except VolumeError as error:
        log.warning("node.without_spare", node=member.node_id, error=str(error))


@transaction.atomic
def _record_change(online: dict[str, bool]) -> None:
    for node_id, is_online in online.items():
        Node.objects.filter(node_id=node_id).update(online=is_online, online_changed_at=Clock())
        log.warning("node.online" if is_online else "node.offline", node=node_id)
        if is_online:
            # While the node was away, files may have been deleted and copies made elsewhere. The node's disk may also
            # have come back in an older state.
            Job.ensure(Job.Kind.RECONCILE, node_id)
    Cluster.bump_topology()


def _queue_audit(topology: Topology) -> None:
    """Queue an audit of the node that has waited the longest, so that every node is audited once in AUDIT_INTERVAL.

    Only one audit is open at a time.
    """
    interval = configuration().audit_interval
    online = [member.node_id for member in topology.online]
    audits = Job.objects.filter(kind=Job.Kind.AUDIT, subject__in=online)
    if not interval or audits.open().exists():
        return
    last = Max("finished_at", filter=Q(state=Job.State.SUCCEEDED))
    ended = dict(audits.values_list("subject").annotate(at=last).values_list("subject", "at"))
    due = Node.objects.filter(node_id__in=online)
    waiting = sorted((ended.get(node.node_id) or node.created_at, node.node_id) for node in due)
    if waiting and waiting[0][0] < clock.now() - timedelta(seconds=interval):
        Job.ensure(Job.Kind.AUDIT, waiting[0][1])


def _queue_census(topology: Topology) -> None:
    """Queue a census once in CENSUS_INTERVAL.

    A running audit pauses for a census: audits take days, a census minutes.
    """
    interval = configuration().census_interval
    census = Job.objects.filter(kind=Job.Kind.CENSUS)
    if not interval or not topology.online or census.open().exists():
        return
    lately = (Clock() - timedelta(seconds=interval), Clock())
    is_new = Cluster.objects.filter(created_at__range=lately).exists()
    if not is_new and not census.filter(finished_at__range=lately).exists():
        Job.ensure(Job.Kind.CENSUS, "cluster")


def _queue_rebuilds(topology: Topology) -> None:
    try:
        reasons = _inspect_one(topology) | trust.outdated(topology)
    except StoreUnavailable as error:
        log.warning("sketch.unavailable", error=str(error))
        return
    running = set(
        Job.objects.filter(kind=Job.Kind.REBUILD_SKETCH, state=Job.State.RUNNING).values_list("subject", flat=True)
    )
    wanted = {node_id: reason for node_id, reason in reasons.items() if node_id not in running}
    for node_id, reason in wanted.items():
        job = Job.request(Job.Kind.REBUILD_SKETCH, node_id)
        new = Job.objects.filter(pk=job.pk, state=Job.State.QUEUED, result__isnull=True)
        if new.update(result={"reason": str(reason)}):
            log.info("sketch.outdated", node=node_id, reason=str(reason))


def _inspect_one(topology: Topology) -> dict[str, Reason]:
    """Inspect the registers of one node. Each round takes the next node, so each round reads one sketch."""
    if not topology.online:
        return {}
    member = topology.online[_round() % len(topology.online)]
    reason = trust.inspect(topology, member)
    # If a recent rebuild has not removed the reason, another rebuild will not remove it either.
    return {member.node_id: reason} if reason and not _rebuilt_recently(member) else {}


def _round() -> int:
    return int(time.monotonic() / ROUND)


def _rebuilt_recently(member: Member) -> bool:
    ended = Job.objects.filter(kind=Job.Kind.REBUILD_SKETCH, subject=member.node_id, state__in=Job.TERMINAL)
    return ended.filter(finished_at__range=(Clock() - INSPECTION_PAUSE, Clock())).exists()
