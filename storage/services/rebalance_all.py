"""Even out how full the nodes are, moving no more bytes than that takes: after a node was added.

A node is to hold its share of all bytes, in proportion to its capacity. What a node has above its share is what has to
leave it, so a copy moves only from a node above its share to one below: the bytes moved are the sum of what is above.
Each copy is made before the other goes, so that no chunk is below its target on the way. The phases:
``rebalance_all.locate``, ``rebalance_all.count``, ``rebalance_all.write``, ``rebalance_all.trim``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from storage import counters, wakeups
from storage.counters import Event
from storage.models import Job
from storage.replicas import census, moving
from storage.replicas.census import Entry
from storage.replicas.moving import Move
from storage.topology import Member, Topology

log = structlog.get_logger(__name__)

TOLERANCE = 0.01  # of its share by which a node may be above it


@dataclass(frozen=True)
class Balance:
    """How full a node is, and should be.

    Attributes:
        node_id: its id.
        bytes: what it holds.
        share: what it should hold, in bytes.
    """

    node_id: str
    bytes: int
    share: float

    @property
    def excess(self) -> float:
        """Bytes above the share; below 0 what there is room for."""
        return self.bytes - self.share


def balances(topology: Topology) -> dict[str, Balance]:
    """Node id → its balance, for the nodes that count.

    The capacity of a node is its file system's; nodes on one file system have equal parts of it.

    Raises:
        VolumeError: a node does not answer.
    """
    counting = [member for member in topology.members if member.counts]
    spaces = {member.node_id: member.lane.call(member.lane.volume.space) for member in counting}
    sharing = Counter(space.device for space in spaces.values())
    capacity = {node_id: space.total / sharing[space.device] for node_id, space in spaces.items()}
    held, room = sum(member.stored_bytes for member in counting), sum(capacity.values())
    return {
        member.node_id: Balance(member.node_id, member.stored_bytes, held * capacity[member.node_id] / room)
        for member in counting
    }


def plan(topology: Topology, entries: Mapping[str, Entry], excess: dict[str, float]) -> list[Move]:
    """Choose copies to move, one of a chunk at most, and update ``excess`` as if they had moved.

    Args:
        topology: the nodes.
        entries: chunks that may move; those below their targets do not.
        excess: node id → bytes above its share.
    """
    moves = []
    for chunk_hash, entry in entries.items():
        if entry.surplus:  # of a move that was interrupted between its two halves
            fullest = sorted(entry.counting, key=lambda member: excess.get(member.node_id, 0.0), reverse=True)
            moves.append(Move(chunk_hash, entry.target, [], fullest[: entry.surplus]))
            continue
        if entry.target == 0 or entry.short:
            continue
        pair = _pair(topology, entry, excess)
        if pair is None:
            continue
        giver, taker = pair
        excess[giver.node_id] -= entry.size
        excess[taker.node_id] += entry.size
        moves.append(Move(chunk_hash, len(entry.counting) + 1, [taker], [giver]))
    return moves


def _pair(topology: Topology, entry: Entry, excess: Mapping[str, float]) -> tuple[Member, Member] | None:
    """From which node a copy of the chunk should go to which; None if that would even out nothing."""
    giver = max(entry.counting, key=lambda member: excess.get(member.node_id, 0.0))
    zones = {member.zone for member in entry.counting if member is not giver and member.zone}
    takers = [
        member
        for member in topology.accepting
        if member not in entry.holders
        and member.node_id in excess
        # No zone may get a second copy that did not have one before.
        and (member.zone not in zones or giver.zone in zones)
    ]
    if not takers or giver.node_id not in excess:
        return None
    taker = min(takers, key=lambda member: excess[member.node_id])
    # Half a chunk: less than that, and the other node would be above its share by more than this one was.
    gain = min(excess[giver.node_id], -excess[taker.node_id])
    return (giver, taker) if gain >= entry.size / 2 and gain > 0 else None


def request() -> Job:
    """Queue the rebalancing of the cluster."""
    job = Job.ensure(Job.Kind.REBALANCE_ALL, "cluster")
    wakeups.wake("maintenance")
    return job


def rebalance_all(job: Job) -> dict[str, Any]:
    """Carry out such a job; returns the copies and bytes moved.

    What is left to do is worked out again for every range of hashes, from what the nodes hold then: a turn or an
    attempt that ended early, or uploads meanwhile, change nothing about where this leads.

    Raises:
        LeaseLost: the job is another worker's.
        TurnEnded: more urgent work waits.
        VolumeError: a node does not answer.
    """
    found: dict[str, Any] = {"replicas": 0, "bytes": 0} | (job.result or {})
    job.result = found
    for step in job.steps(census.RANGES):
        topology = Topology.load()
        entries = census.take(topology, census.prefix_of(step)).entries
        for batch in moving.batches(plan(topology, entries, _excess(balances(topology)))):
            moved = moving.carry_out(topology, batch, operation="rebalance_all")
            counters.add(Event.REPLICAS_MOVED, moved.removed)
            found["replicas"] += moved.removed
            found["bytes"] += sum(entries[move.chunk_hash].size for move in batch if move.add)
            job.progress()
            job.make_way()
    log.info("rebalance_all.done", job=str(job.pk), **found)
    return found


def _excess(found: Mapping[str, Balance]) -> dict[str, float]:
    """Node id → bytes above its share; nothing when no node is above it by more than the tolerance."""
    if all(balance.excess <= TOLERANCE * balance.share for balance in found.values()):
        return {}
    return {node_id: balance.excess for node_id, balance in found.items()}
