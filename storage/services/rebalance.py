"""Bring a file's chunks to their targets.

The phases of the job: ``rebalance.locate``, ``rebalance.count``, ``rebalance.write``, ``rebalance.trim``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from django.db import transaction

from storage import counters
from storage.cluster.topology import Topology
from storage.counters import Event
from storage.exceptions import ClusterUnavailable, ContentUnavailable, InvalidRequest
from storage.jobs import wakeups
from storage.models import Activity, Chunk, Content, Holding, Job
from storage.replicas import moving
from storage.replicas.finding import ask, health_of, holders_of
from storage.replicas.moving import BATCH_CHUNKS, Moved

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Plan:
    """The work that brings a file's chunks to their targets.

    Attributes:
        added: node id → (copies, bytes) that the node gets.
        removed: node id → (copies, bytes) that the node loses.
        lost: the number of chunks without a copy on a node that answers. No copy can be written for the lost chunks.
    """

    added: dict[str, tuple[int, int]]
    removed: dict[str, tuple[int, int]]
    lost: int


def plan(held: Holding, replication_factor: int | None) -> Plan:
    """Ask the volumes, and work out what a rebalance would do. This function changes nothing.

    Raises:
        InvalidRequest, ClusterUnavailable: as for ``request``.
        NoSuchFile: the content has been deleted since it was read.
    """
    topology = Topology.load()
    factor = _possible_factor(topology, held, replication_factor)
    sizes = dict(held.content.manifest())
    targets = _targets(held, None if replication_factor is None else factor)
    holders = holders_of(topology, list(sizes.items()))
    added: dict[str, tuple[int, int]] = {}
    removed: dict[str, tuple[int, int]] = {}
    for move in moving.plan(topology, holders, {chunk_hash: targets[chunk_hash] for chunk_hash in sizes}):
        chunk_holders = holders[move.chunk_hash]
        missing = max(0, move.target - sum(member.counts for member in chunk_holders))
        for changed, members in ((added, move.add[:missing] if chunk_holders else []), (removed, move.drop)):
            for member in members:
                copies, size = changed.get(member.node_id, (0, 0))
                changed[member.node_id] = copies + 1, size + sizes[move.chunk_hash]
    return Plan(added, removed, lost=sum(not chunk_holders for chunk_holders in holders.values()))


def request(held: Holding, replication_factor: int | None) -> Job:
    """Set the replication factor of the owner's files and objects, if a factor is given, and queue the rebalancing.

    Raises:
        InvalidRequest: the factor is above the number of nodes.
        ClusterUnavailable: there are enough nodes, but too few of them are active and online.
    """
    factor = _possible_factor(Topology.load(), held, replication_factor)
    content = held.content
    with transaction.atomic():
        Content.objects.locked([content.pk])  # Contents are locked before files and parts, as in a deletion.
        if replication_factor is not None:
            held.want(factor)
        job = Job.request(
            Job.Kind.REBALANCE,
            f"content {content.pk}",
            owner_id=held.owner_id,
            file_hash=content.file_hash,
            size=content.size,
        )
        Activity.record(
            Activity.Action.REBALANCE,
            held.name,
            owner_id=held.owner_id,
            file_hash=content.file_hash,
            detail=str(factor),
        )
        wakeups.on_commit(Job.Queue.MAINTENANCE)
    log.info("rebalance.requested", job=str(job.pk), file_hash=content.file_hash, replication_factor=factor)
    return job


def _possible_factor(topology: Topology, held: Holding, replication_factor: int | None) -> int:
    factor = held.replication_factor if replication_factor is None else replication_factor
    if factor > len(topology.members):
        message = f"the cluster has {len(topology.members)} nodes"
        raise InvalidRequest("replication factor above the number of nodes", {"replication_factor": [message]})
    if factor > len([member for member in topology.members if member.counts]):
        raise ClusterUnavailable(f"fewer than {factor} nodes are online")
    return factor


def _targets(held: Holding, factor: int | None) -> dict[str, int]:
    """Chunk hash → its target, as it is or with a new factor. Another owner of the chunk may want more replicas."""
    ids = dict(Chunk.objects.filter(entries__content=held.content).values_list("hash", "id"))
    if factor is None:
        wanted = Chunk.objects.targets(ids.values())
    else:
        files, parts = (rows.values_list("pk", flat=True) for rows in (held.files, held.parts))
        wanted = Chunk.objects.targets(ids.values(), without_files=files, without_parts=parts)
    return {chunk_hash: max(factor or 0, wanted[chunk_id]) for chunk_hash, chunk_id in ids.items()}


def rebalance(job: Job) -> dict[str, int]:
    """Carry out a rebalance job; returns the numbers of copies ``added`` and ``removed``.

    Raises:
        LeaseLost: the job is another worker's.
        ContentUnavailable: some chunks could not be read; all other chunks are at their targets.
    """
    content = Content.objects.filter(file_hash=job.file_hash).first()
    if content is None:
        return {"added": 0, "removed": 0}
    sizes = dict(content.manifest())
    hashes = list(sizes)
    job.progress(done=0, total=len(hashes))
    moved = Moved()
    for start in range(0, len(hashes), BATCH_CHUNKS):
        batch = hashes[start : start + BATCH_CHUNKS]
        moved += _rebalance_batch({chunk_hash: sizes[chunk_hash] for chunk_hash in batch})
        job.progress(done=min(len(hashes), start + BATCH_CHUNKS))
    _record_health(content)
    if moved.unreadable:
        raise ContentUnavailable(f"{moved.unreadable} chunks cannot be read")
    return {"added": moved.added, "removed": moved.removed}


def _rebalance_batch(sizes: Mapping[str, int]) -> Moved:
    topology = Topology.load()
    ids = dict(Chunk.objects.filter(hash__in=list(sizes)).values_list("hash", "id"))
    wanted = Chunk.objects.targets(ids.values())
    targets = {chunk_hash: wanted[ids[chunk_hash]] for chunk_hash in sizes if chunk_hash in ids}
    holders = ask(topology, {chunk_hash: sizes[chunk_hash] for chunk_hash in targets}).holders
    moved = moving.carry_out(topology, moving.plan(topology, holders, targets), operation="rebalance")
    counters.add(Event.REPLICAS_REPAIRED, moved.added)
    return moved


def _record_health(content: Content) -> None:
    topology = Topology.load()
    manifest = content.manifest()
    content.record_health(health_of(topology, manifest, holders_of(topology, manifest), content.target))
