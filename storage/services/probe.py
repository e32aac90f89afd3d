"""Look after the nodes and their sketches: who is there, who is full, whose sketch cannot be trusted."""

from __future__ import annotations

import time
from datetime import timedelta

import structlog
from django.db import transaction

from storage import topology, trust, wakeups
from storage.exceptions import VolumeError
from storage.models import Cluster, Content, Job, Node
from storage.models.job import Clock
from storage.routing import StoreUnavailable
from storage.topology import Member, Topology
from storage.trust import Reason

log = structlog.get_logger(__name__)

HEADROOM = 256 << 20
WEIGHT_STEPS = 16
ROUND = 5.0  # seconds
INSPECTION_PAUSE = timedelta(minutes=10)  # after a rebuild, before what is inside a sketch has it rebuilt again


def probe() -> None:
    """One round: record what has changed, and queue the work that follows from it."""
    seen = Topology.load()
    states = {member.node_id: _look(member) for member in seen.members}
    changed = [m for m in seen.members if m.online != (states[m.node_id] is not None)]
    if changed:
        _record_change({member.node_id: states[member.node_id] is not None for member in changed})
    for member in seen.members:
        weight = states[member.node_id]
        if weight is not None and weight != member.weight:
            Node.objects.filter(node_id=member.node_id).update(weight=weight)
    topology.forget()
    rebuilds = _queue_rebuilds(Topology.load())
    stale = Content.objects.filter(state=Content.State.READY, health_epoch__lt=seen.cluster.topology_epoch).exists()
    if stale:
        Job.request(Job.Kind.REFRESH_HEALTH, "all")
    if stale or rebuilds:
        wakeups.wake("maintenance")


def _look(member: Member) -> float | None:
    """The node's share of free space in sixteenths, 0 when it is full; None when it is not there."""
    try:
        identity = member.lane.call(member.lane.volume.identity)
        if not identity.same_volume(member.identity):
            return None
        space = member.lane.call(member.lane.volume.space)
    except VolumeError:
        return None
    if space.free < HEADROOM:
        return 0.0
    # Coarse, so that a retry finds the same order of nodes as the attempt before it.
    return max(1, round(WEIGHT_STEPS * space.free / space.total)) / WEIGHT_STEPS


@transaction.atomic
def _record_change(online: dict[str, bool]) -> None:
    for node_id, is_online in online.items():
        Node.objects.filter(node_id=node_id).update(online=is_online, online_changed_at=Clock())
        log.warning("node.online" if is_online else "node.offline", node=node_id)
    Cluster.bump_topology()


def _queue_rebuilds(seen: Topology) -> int:
    try:
        reasons = _inspect_one(seen) | trust.outdated(seen)
    except StoreUnavailable as error:
        log.warning("sketch.unavailable", error=str(error))
        return 0
    running = set(
        Job.objects.filter(kind=Job.Kind.REBUILD_SKETCH, state=Job.State.RUNNING).values_list("subject", flat=True)
    )
    wanted = {node_id: reason for node_id, reason in reasons.items() if node_id not in running}
    for node_id, reason in wanted.items():
        job = Job.request(Job.Kind.REBUILD_SKETCH, node_id)
        new = Job.objects.filter(pk=job.pk, state=Job.State.QUEUED, result__isnull=True)
        if new.update(result={"reason": str(reason)}):
            log.info("sketch.outdated", node=node_id, reason=str(reason))
    return len(wanted)


def _inspect_one(seen: Topology) -> dict[str, Reason]:
    """Look into the registers of one node, another one each round: no round reads more than one sketch."""
    if not seen.online:
        return {}
    member = seen.online[_round() % len(seen.online)]
    reason = trust.inspect(seen, member)
    # What a rebuild has not mended, the next one will not either.
    return {member.node_id: reason} if reason and not _rebuilt_recently(member) else {}


def _round() -> int:
    return int(time.monotonic() / ROUND)


def _rebuilt_recently(member: Member) -> bool:
    ended = Job.objects.filter(kind=Job.Kind.REBUILD_SKETCH, subject=member.node_id, state__in=Job.TERMINAL)
    return ended.filter(finished_at__gt=Clock() - INSPECTION_PAUSE).exists()
