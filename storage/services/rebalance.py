"""Bring a file's chunks to their targets: plan (pure), then act.

The phases of acting: ``rebalance.locate``, ``rebalance.count``, ``rebalance.write``, ``rebalance.trim``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from django.db import transaction

from storage import phases, routing, wakeups
from storage.exceptions import ClusterUnavailable, InvalidRequest, VolumeError
from storage.models import Chunk, Content, File, Job
from storage.replicas.finding import health_of, holders_of, survey
from storage.replicas.reading import read
from storage.replicas.removing import remove_replica
from storage.replicas.writing import store
from storage.topology import Member, Topology

log = structlog.get_logger(__name__)

BATCH_CHUNKS = 32


@dataclass(frozen=True)
class Move:
    """What one chunk needs.

    Attributes:
        target: replicas wanted on nodes that count.
        add: nodes to try for new copies, best first; empty when there are enough.
        drop: nodes whose copies are too many, or that are being drained.
    """

    chunk_hash: str
    target: int
    add: list[Member]
    drop: list[Member]


def plan(topology: Topology, holders: Mapping[str, Sequence[Member]], targets: Mapping[str, int]) -> list[Move]:
    """Decide what every chunk needs: copies go to the least loaded nodes and leave the most loaded.

    Args:
        topology: the nodes.
        holders: chunk hash → nodes that have a copy.
        targets: chunk hash → replicas wanted.
    """
    by_load = sorted(topology.accepting, key=lambda member: (member.stored_bytes / member.weight, member.node_id))
    place = {member.node_id: i for i, member in enumerate(by_load)}
    moves = []
    for chunk_hash, held in holders.items():
        target = targets[chunk_hash]
        counting = [member for member in held if member.counts]
        add = [member for member in by_load if member not in held] if len(counting) < target else []
        surplus = sorted(counting, key=lambda m: place.get(m.node_id, len(place)), reverse=True)
        drop = surplus[: max(0, len(counting) - target)]
        drop += [member for member in held if member.online and member.state == "draining"]
        if add or drop:
            moves.append(Move(chunk_hash, target, add, drop))
    return moves


def request(file: File, replication_factor: int | None) -> Job:
    """Set the file's replication factor, if one is given, and queue its rebalancing.

    Raises:
        InvalidRequest: the factor is above the number of nodes.
        ClusterUnavailable: there are nodes enough, but too few of them are active.
    """
    topology = Topology.load()
    factor = file.replication_factor if replication_factor is None else replication_factor
    if factor > len(topology.members):
        message = f"the cluster has {len(topology.members)} nodes"
        raise InvalidRequest("replication factor above the number of nodes", {"replication_factor": [message]})
    if factor > len([member for member in topology.members if member.counts]):
        raise ClusterUnavailable(f"fewer than {factor} nodes are online")
    with transaction.atomic():
        File.objects.filter(pk=file.pk).update(replication_factor=factor)
        file.replication_factor = factor
        job = Job.request(
            Job.Kind.REBALANCE,
            f"content {file.content_id}",
            file_hash=file.content.file_hash,
            size=file.content.size,
        )
        wakeups.on_commit("maintenance")
    log.info("rebalance.requested", job=str(job.pk), file_hash=file.content.file_hash, replication_factor=factor)
    return job


def rebalance(job: Job) -> dict[str, int]:
    """Carry out a rebalance job; returns what it did.

    Raises:
        LeaseLost: the job is another worker's.
        StorageError: a chunk could not be read.
    """
    content = Content.objects.filter(file_hash=job.file_hash).first()
    if content is None:
        return {"added": 0, "removed": 0}
    sizes = dict(content.manifest())
    hashes = list(sizes)
    job.progress(done=0, total=len(hashes))
    added = removed = 0
    for start in range(0, len(hashes), BATCH_CHUNKS):
        batch = hashes[start : start + BATCH_CHUNKS]
        more, fewer = _rebalance_batch({chunk_hash: sizes[chunk_hash] for chunk_hash in batch})
        added, removed = added + more, removed + fewer
        job.progress(done=min(len(hashes), start + BATCH_CHUNKS))
    _record_health(content)
    return {"added": added, "removed": removed}


def _rebalance_batch(sizes: Mapping[str, int]) -> tuple[int, int]:
    topology = Topology.load()
    ids = dict(Chunk.objects.filter(hash__in=list(sizes)).values_list("hash", "id"))
    wanted = Chunk.objects.targets(ids.values())
    targets = {chunk_hash: wanted[ids[chunk_hash]] for chunk_hash in sizes if chunk_hash in ids}
    holders = survey(topology, {chunk_hash: sizes[chunk_hash] for chunk_hash in targets}).holders
    moves = plan(topology, holders, targets)
    return _add(topology, [move for move in moves if move.add]), _drop(topology, moves)


def _add(topology: Topology, moves: Sequence[Move]) -> int:
    if not moves:
        return 0
    candidates = routing.locate(topology, [move.chunk_hash for move in moves])
    data = {
        move.chunk_hash: read(topology, move.chunk_hash, order, _report)
        for move, order in zip(moves, candidates, strict=True)
    }
    before = survey(topology, {chunk_hash: len(chunk) for chunk_hash, chunk in data.items()})
    stored = store(
        topology,
        data,
        {move.chunk_hash: move.target for move in moves},
        operation="rebalance",
        preferences={move.chunk_hash: move.add for move in moves},
    )
    return sum(max(0, len(stored.holders[h]) - len(before.holders[h])) for h in data)


def _drop(topology: Topology, moves: Sequence[Move]) -> int:
    phases.enter("rebalance.trim")
    removed = 0
    for move in moves:
        for member in move.drop:
            try:
                removed += remove_replica(topology, move.chunk_hash, member)
            except VolumeError as error:
                log.warning("trim.failed", chunk=move.chunk_hash, node=member.node_id, error=str(error))
    return removed


def _record_health(content: Content) -> None:
    topology = Topology.load()
    manifest = content.manifest()
    content.record_health(health_of(topology, manifest, holders_of(topology, manifest), content.target()))


def _report(chunk_hash: str) -> None:
    Job.request(Job.Kind.REPAIR, chunk_hash)
