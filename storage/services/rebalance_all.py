"""Bring every copy to where placement puts it now: after a node was added, or when copies have gathered on few nodes.

A copy is misplaced if its node is not among the first nodes in the order of placement of its chunk. All misplaced
copies move, and no other copies. With rendezvous hashing no fewer moves are possible, and then each node has the share
of copies that placement gives it (ADR 19). The new copy is made before the old copy is removed, so no chunk is ever
below its target because of a move. The phases: ``rebalance_all.locate``, ``rebalance_all.count``,
``rebalance_all.write``, ``rebalance_all.trim``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import structlog
from django.db import transaction

from storage import counters
from storage.cluster.topology import Topology
from storage.counters import Event
from storage.exceptions import VolumeOffline
from storage.jobs import wakeups
from storage.jobs.naming import name_of
from storage.models import Activity, Cluster, Job, clock
from storage.replicas import census, moving
from storage.replicas.census import Census, Entry
from storage.replicas.moving import Move
from storage.tracking import surveying
from storage.tracking.store import StoreUnavailable
from storage.tracking.surveying import Drawing

log = structlog.get_logger(__name__)


@dataclass
class Load:
    """How full a node is now, and how full it will be after the moves.

    Attributes:
        node_id: the id of the node.
        bytes: bytes of the copies on the node whose chunks have a target above 0.
        copies_in: number of copies that would be made on the node.
        bytes_in: size in bytes of the copies that would be made on the node.
        copies_out: number of copies that would be removed from the node.
        bytes_out: size in bytes of the copies that would be removed from the node.
    """

    node_id: str
    bytes: int = 0
    copies_in: int = 0
    bytes_in: int = 0
    copies_out: int = 0
    bytes_out: int = 0

    @property
    def planned(self) -> int:
        """The bytes that the node will hold after the moves."""
        return self.bytes + self.bytes_in - self.bytes_out


@dataclass(frozen=True)
class Plan:
    """The work that a rebalance would do.

    Attributes:
        copies: number of copies that count towards a target above 0.
        misplaced: number of copies that would move.
        surplus: number of copies that would be removed only, because their chunks have too many copies.
        bytes: the size of the copies that would be made.
        loads: the load of every node whose copies count towards targets.
        largest_z: the largest standard score of the overlap of two nodes, from their sketches; None if not known.
        largest_z_planned: the largest standard score after the moves, from sketches of the planned state.
    """

    copies: int
    misplaced: int
    surplus: int
    bytes: int
    loads: list[Load]
    largest_z: float | None
    largest_z_planned: float | None


def plan() -> Plan:
    """List all nodes, and work out what ``rebalance_all`` would do. This function changes nothing.

    Raises:
        VolumeOffline: a node cannot be listed.
    """
    topology = Topology.load()
    drawing = Drawing(topology)
    loads = {member.node_id: Load(member.node_id) for member in topology.members if member.counts}
    copies = 0
    for prefix in census.prefixes(topology):
        entries = _take(topology, prefix).entries
        chosen = {move.chunk_hash: move for move in moves(topology, entries)}
        copies += sum(len(entry.counting) for entry in entries.values() if entry.target)
        _add_up(loads, entries, chosen)
        _draw(drawing, entries, chosen)
    arriving = sum(load.copies_in for load in loads.values())
    return Plan(
        copies=copies,
        misplaced=arriving,
        surplus=sum(load.copies_out for load in loads.values()) - arriving,
        bytes=sum(load.bytes_in for load in loads.values()),
        loads=list(loads.values()),
        largest_z=_largest_z(topology),
        largest_z_planned=surveying.largest_z(drawing.overlap()),
    )


def moves(topology: Topology, entries: Mapping[str, Entry]) -> list[Move]:
    """Plan the moves of every chunk with misplaced copies: where to make copies, and which to remove then. Pure.

    If an earlier move was interrupted after its new copy was made, the plan finishes it: the old copy is removed. A
    chunk below its target is left to repair.

    Args:
        topology: the nodes.
        entries: chunk hash → what a census found of the chunk.
    """
    found = []
    holders = {h: entry.holders for h, entry in entries.items() if entry.target and not entry.short}
    for chunk_hash, order in moving.orders(topology, holders):
        entry = entries[chunk_hash]
        counting = entry.counting
        wanted = order[: entry.target]
        drop = [member for member in reversed(order[entry.target :]) if member in counting]
        if drop:
            add = [member for member in wanted if member not in counting]
            found.append(Move(chunk_hash, len(counting) + len(add), add, drop))
    return found


def request() -> Job:
    """Queue the rebalancing of the cluster."""
    with transaction.atomic():
        job = Job.request(Job.Kind.REBALANCE_ALL, "cluster")
        Activity.record(Activity.Action.MAINTAIN, name_of(job))
    wakeups.wake(Job.Queue.MAINTENANCE)
    return job


def rebalance_all(job: Job) -> dict[str, Any]:
    """Carry out a rebalance of the cluster; returns the numbers of ``replicas`` and ``bytes`` moved.

    The moves of a range of hashes are planned when the job comes to the range, from what the nodes hold then. So a turn
    or an attempt that ended early, or uploads at the same time, do not change the final state. If nodes have been added
    or drained since the first range, the job goes through all ranges once more.

    Raises:
        LeaseLost: the job is another worker's.
        TurnEnded: more urgent work waits.
        VolumeOffline: a node does not answer.
    """
    begin = {"placement": _placement(), "begun": clock.now().isoformat()}
    result: dict[str, Any] = {"replicas": 0, "bytes": 0, **begin} | (job.result or {})
    job.result = result
    while True:
        prefixes = census.prefixes(Topology.load(), job.total)
        for step in job.steps(len(prefixes)):
            _move_range(job, prefixes[step])
        if result["placement"] == _placement():
            break
        result |= {"placement": _placement(), "begun": clock.now().isoformat()}
        job.progress(done=0)
    Cluster.objects.update(rebalanced_at=datetime.fromisoformat(result["begun"]))
    outcome = {name: result[name] for name in ("replicas", "bytes")}
    log.info("rebalance_all.done", job=str(job.pk), **outcome)
    return outcome


def _move_range(job: Job, prefix: str) -> None:
    result = job.result or {}
    topology = Topology.load()
    entries = _take(topology, prefix).entries
    for batch in moving.batches(moves(topology, entries)):
        moved = moving.carry_out(topology, batch, operation="rebalance_all")
        counters.add(Event.REPLICAS_MOVED, moved.removed)
        result["replicas"] += moved.removed
        result["bytes"] += sum(entries[move.chunk_hash].size * len(move.add) for move in batch)
        job.progress()
        job.make_way()


def _take(topology: Topology, prefix: str) -> Census:
    listing = census.take(topology, prefix)
    for member in listing.silent:
        if member.counts:
            raise VolumeOffline(f"{member.node_id} cannot be listed")
    return listing


def _placement() -> str:
    """A digest of the nodes as placement sees them. A new node, a drain, a new zone or disk size changes the digest.

    A node that is offline for a while does not change the digest: repair makes its copies again on the nodes that come
    next in the same order of placement.
    """
    active = [member.candidate for member in Topology.load().members if member.state == "active"]
    return sha256(repr(active).encode()).hexdigest()[:16]


def _add_up(loads: Mapping[str, Load], entries: Mapping[str, Entry], chosen: Mapping[str, Move]) -> None:
    for entry in entries.values():
        for member in entry.counting if entry.target else ():
            loads[member.node_id].bytes += entry.size
    for chunk_hash, move in chosen.items():
        for member in move.add:
            loads[member.node_id].copies_in += 1
            loads[member.node_id].bytes_in += entries[chunk_hash].size
        for member in move.drop:
            loads[member.node_id].copies_out += 1
            loads[member.node_id].bytes_out += entries[chunk_hash].size


def _draw(drawing: Drawing, entries: Mapping[str, Entry], chosen: Mapping[str, Move]) -> None:
    """Add the copies of a range to ``drawing``, the sketches of the state after the moves."""
    planned: dict[str, list[str]] = {}
    for chunk_hash, entry in entries.items():
        move = chosen.get(chunk_hash)
        stay = [member for member in entry.holders if move is None or member not in move.drop]
        for member in (*stay, *(move.add if move else ())):
            planned.setdefault(member.node_id, []).append(chunk_hash)
    drawing.add(planned)


def _largest_z(topology: Topology) -> float | None:
    try:
        survey = surveying.survey(topology)
    except StoreUnavailable as error:
        log.warning("sketch.unavailable", error=str(error))
        return None
    return surveying.largest_z(survey.overlap) if survey else None
