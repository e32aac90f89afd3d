"""Compare nodes with what they should hold.

An audit compares one node and reads every byte of it. A reconcile compares one node without reading bytes. A census
compares all nodes.

Each of these jobs goes through the ranges of hashes, one after the other. In each range, short chunks are noted for
repair, surplus copies are trimmed, orphans are condemned, leftovers of dead processes are removed, and bad copies are
reported, so that a worker judges them. At the end of an audit or a reconcile, the node's sketch is rebuilt. A node that
was away is reconciled when it is back. A census lists all nodes and reads no bytes. A census queues a rebuild of each
sketch that contradicts the listing. The phases: ``audit.list``, ``audit.trim``, ``audit.read``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import structlog

from storage import counters, phases
from storage.cluster.topology import Member, Topology
from storage.conf import configuration
from storage.counters import Event
from storage.exceptions import ReplicaCorrupt, ReplicaMissing, VolumeOffline
from storage.jobs import maintenance
from storage.models import Job, Node
from storage.replicas import census, moving, orphans
from storage.replicas.census import Census
from storage.replicas.denying import rebuild_what_denies
from storage.replicas.finding import examine
from storage.replicas.moving import Move
from storage.replicas.reporting import report
from storage.replicas.restoring import bring_back_or_tell
from storage.tracking import batches
from storage.tracking.trust import Reason

log = structlog.get_logger(__name__)

CHECKPOINT_SECONDS = 1.0
CENSUS_RATE = 50_000  # A census lists at most this many names per second, on all nodes together.
DENIED_SAMPLE = 64  # In each range, a census looks up this many chunks in the sketches.
# A listing may differ from the tallies by this many copies: a process that dies may have removed or written copies that
# it has not tallied.
TALLY_SLACK = 32
COUNTED = ("replicas", "bytes", "corrupt", "unreadable", "short", "lost", "surplus", "orphans", "leftovers")

CENSUS_COUNTED = ("chunks", *(name for name in COUNTED if name not in ("corrupt", "unreadable")), "denied")


@dataclass(frozen=True)
class Plan:
    """What an audit of a node would find without reading bytes, and how long the reading would take.

    Attributes:
        node_id: the node.
        found: numbers of replicas, bytes, short, lost and surplus chunks, orphans and leftovers.
        seconds: the time in seconds to read all replicas at AUDIT_RATE.
    """

    node_id: str
    found: Mapping[str, int]
    seconds: float


def plan(node_id: str) -> Plan:
    """List the node and compare it with PostgreSQL. This function changes nothing.

    Raises:
        NoSuchNode: there is no such node.
        VolumeOffline: the node cannot be listed.
    """
    topology = Topology.load()
    member = topology.member(node_id)
    counts: Counter[str] = Counter()
    for prefix in census.prefixes(topology):
        listing = _take(topology, member, prefix)
        counts += _compared([member], listing)
        counts["leftovers"] += len(_leftovers(member, prefix))
    return Plan(node_id, counts, counts["bytes"] / configuration().audit_rate)


def request(node_id: str) -> Job:
    """Queue an audit of the node.

    Raises:
        NoSuchNode: there is no such node.
    """
    Topology.load().member(node_id)
    return maintenance.ensure(Job.Kind.AUDIT, node_id)


def audit(job: Job) -> dict[str, Any]:
    """Carry out an audit job, whose subject is a node id; returns the numbers named in ``COUNTED``.

    ``short``, ``lost`` and ``surplus`` are chunks of the whole cluster. There is no table of where copies lie, so it is
    not known on which node a missing copy should be.

    Raises:
        LeaseLost: the job is another worker's.
        TurnEnded: more urgent work waits.
        VolumeOffline: the node does not answer.
    """
    return _examine(job, reading=True)


def reconcile(job: Job) -> dict[str, Any]:
    """Carry out an audit without reading bytes, for a node that has come back.

    In all other respects a reconcile is like ``audit``.
    """
    return _examine(job, reading=False)


def _examine(job: Job, *, reading: bool) -> dict[str, Any]:
    # "read_to" is the last hash that was read in the current range. If "read_to" is set, an earlier turn or attempt of
    # this job has compared the range already.
    result: dict[str, Any] = dict.fromkeys(COUNTED, 0) | {"read_to": ""} | (job.result or {})
    job.result = result
    prefixes = census.prefixes(Topology.load(), job.total)
    for step in job.steps(len(prefixes)):
        topology = Topology.load()
        member = topology.member(str(job.subject))
        phases.enter("audit.list")
        listing = _take(topology, member, prefixes[step])
        if not result["read_to"]:
            _add_to(result, _settle(job, topology, [member], listing))
        if reading:
            phases.enter("audit.read")
            _read(job, member, listing)
        result["read_to"] = ""
    _request_rebuild(str(job.subject))
    outcome = {name: result[name] for name in COUNTED}
    log.info("audit.done", job=str(job.pk), node=job.subject, reading=reading, **outcome)
    return outcome


def _request_rebuild(node_id: str) -> None:
    """Queue a rebuild of the node's sketch, with the reason ``LISTED``.

    An audit or a census has found the missing copies already. So a rebuild with the reason ``LISTED`` queues no
    reconcile.
    """
    job = Job.request(Job.Kind.REBUILD_SKETCH, node_id)
    new = Job.objects.filter(pk=job.pk, state=Job.State.QUEUED, result__isnull=True)
    new.update(result={"reason": str(Reason.LISTED)})


def _take(topology: Topology, member: Member, prefix: str) -> Census:
    listing = census.take(topology, prefix)
    if member in listing.silent:
        raise VolumeOffline(f"{member.node_id} cannot be listed")
    return listing


def _compared(members: Sequence[Member], listing: Census) -> Counter[str]:
    """Count the replicas, bytes and orphans of a range on ``members``, and its short, surplus and lost chunks."""
    counts: Counter[str] = Counter()
    for entry in listing.entries.values():
        copies = sum(member in members for member in entry.holders)
        counts["replicas"] += copies
        counts["bytes"] += copies * entry.size
        counts["short"] += bool(entry.short and entry.holders)
        counts["surplus"] += bool(entry.surplus)
    counts["lost"] += len(listing.lost)
    counts["orphans"] += len(_orphans(members, listing))
    return counts


def _orphans(members: Sequence[Member], listing: Census) -> dict[str, int]:
    return {h: size for h, copies in listing.orphans.items() for holder, size in copies if holder in members}


def _leftovers(member: Member, prefix: str) -> list[str]:
    return member.lane.call(lambda: list(member.lane.volume.leftovers(prefix)))


def _settle(job: Job, topology: Topology, members: Sequence[Member], listing: Census) -> Counter[str]:
    """Count what is wrong in a range on ``members``, and mend it or queue its repair; returns the numbers found."""
    census.look_again(topology, listing)
    counts = _compared(members, listing)
    restored, _ = bring_back_or_tell(topology, listing.lost, job.progress)
    counts["lost"] -= len(restored)
    for chunk_hash, entry in listing.entries.items():
        if any(member in entry.misfits for member in members):
            report(chunk_hash)
    orphans.condemn(topology, _orphans(members, listing))
    if short := [chunk_hash for chunk_hash, entry in listing.entries.items() if entry.short]:
        moving.outdate_health(short)  # The sweep finds contents by their new summaries (RACES 18).
    _trim(topology, listing)
    counts["leftovers"] = _clear_leftovers(members, listing.prefix)
    return counts


def _trim(topology: Topology, listing: Census) -> None:
    """Remove surplus copies from the nodes that placement prefers least. Copies on absent nodes are not counted."""
    holders = {chunk_hash: entry.holders for chunk_hash, entry in listing.entries.items() if entry.surplus}
    moves = moving.plan(topology, holders, {chunk_hash: listing.entries[chunk_hash].target for chunk_hash in holders})
    for batch in moving.batches([Move(move.chunk_hash, move.target, [], move.drop) for move in moves]):
        moving.carry_out(topology, batch, operation="audit")
        moving.outdate_health([move.chunk_hash for move in batch])


def _clear_leftovers(members: Sequence[Member], prefix: str) -> int:
    """Remove leftovers of dead processes; returns how many were removed.

    The function first lists the leftovers, and then waits until all batches in flight have ended. A listed leftover
    that still exists then belongs to no batch in flight, so no process will rename it any more.
    """
    leftovers = [(member, leftover) for member in members for leftover in _leftovers(member, prefix)]
    if leftovers:
        batches.wait_for_batches()
    removed = sum(member.lane.call(member.lane.volume.discard, leftover) > 0 for member, leftover in leftovers)
    counters.add(Event.LEFTOVERS_REMOVED, removed)
    return removed


def _read(job: Job, member: Member, listing: Census) -> None:
    """Read and hash the node's copies in the order of their hashes, no faster than AUDIT_RATE."""
    result = job.result or {}
    chunk_hashes = sorted(
        h for h, entry in listing.entries.items() if member in entry.holders and h > result["read_to"]
    )
    rate = configuration().audit_rate
    start = checkpoint = time.monotonic()
    read = 0
    for chunk_hash in chunk_hashes:
        problem = _read_one(member, chunk_hash)
        if problem:
            result[problem] += 1
            report(chunk_hash)
        result["read_to"] = chunk_hash
        read += listing.entries[chunk_hash].size
        while (ahead := start + read / rate - time.monotonic()) > 0 or time.monotonic() > checkpoint:
            time.sleep(max(0.0, min(ahead, CHECKPOINT_SECONDS)))
            if time.monotonic() > checkpoint:
                job.progress()
                job.make_way()
                checkpoint = time.monotonic() + CHECKPOINT_SECONDS


def _read_one(member: Member, chunk_hash: str) -> str:
    """Read a copy; returns ``corrupt``, ``unreadable``, or an empty string if nothing is wrong."""
    try:
        member.lane.call(examine, member.lane.volume, chunk_hash)
    except ReplicaMissing:  # The copy was removed after it had been listed.
        return ""
    except ReplicaCorrupt:
        return "corrupt"
    except VolumeOffline as error:
        # Either one sector of the disk is bad, or the whole disk. If the identity file cannot be read either, the whole
        # disk is bad, and the audit ends.
        member.lane.call(member.lane.volume.identity)
        log.warning("replica.unreadable", chunk=chunk_hash, node=member.node_id, error=str(error))
        return "unreadable"
    return ""


def _add_to(result: dict[str, Any], counts: Mapping[str, int]) -> None:
    for name, number in counts.items():
        result[name] += number


# -- census ----------------------------------------------------------------


def request_census() -> Job:
    """Queue a census."""
    return maintenance.ensure(Job.Kind.CENSUS, "cluster")


def take_census(job: Job) -> dict[str, Any]:
    """Carry out a census: list the names and sizes on all nodes, and compare them with PostgreSQL and the sketches.

    Returns:
        ``chunks`` is the number of chunks on record that have a copy. ``replicas``, ``bytes`` and the other numbers are
        as for ``audit``. ``stored`` has the bytes that these replicas take on each node. ``denied`` is the number of
        copies in the samples that sketches denied. ``silent`` has the nodes that could not be listed in some range.
        ``contradicted`` has the nodes whose tallies contradict the listing; their sketches are rebuilt.

    Raises:
        LeaseLost: the job is another worker's.
        TurnEnded: more urgent work waits.
        StoreUnavailable: Redis does not answer.
    """
    result: dict[str, Any] = dict.fromkeys(CENSUS_COUNTED, 0) | {"silent": [], "tallies": {}, "found": {}, "stored": {}}
    result |= job.result or {}
    job.result = result
    prefixes = census.prefixes(Topology.load(), job.total)
    for step in job.steps(len(prefixes)):
        if not step:
            # A node that is added during the census has no tally from before, and is not compared.
            result["tallies"] = {node.node_id: [node.chunks, node.removals] for node in _exact_tallies()}
        start, topology = time.monotonic(), Topology.load()
        phases.enter("audit.list")
        listing = census.take(topology, prefixes[step])
        _pace(job, start, sum(map(listing.listed, topology.members)))
        for name, listed in (("found", listing.copies), ("stored", listing.stored)):
            for node_id, number in listed.items():
                result[name][node_id] = result[name].get(node_id, 0) + number
        result["silent"] = sorted({*result["silent"], *(member.node_id for member in listing.silent)})
        answering = [member for member in topology.members if member not in listing.silent]
        _add_to(result, _settle(job, topology, answering, listing))
        result["chunks"] += sum(bool(entry.holders) for entry in listing.entries.values())
        sizes = {chunk_hash: entry.size for chunk_hash, entry in listing.entries.items()}
        result["denied"] += rebuild_what_denies(topology, _sample(listing), sizes)
    result["contradicted"] = _rebuild_what_contradicts(Topology.load(), result)
    outcome = {name: result[name] for name in (*CENSUS_COUNTED, "stored", "silent", "contradicted")}
    log.info("census.done", job=str(job.pk), **outcome)
    return outcome


def _pace(job: Job, start: float, names: int) -> None:
    """Wait if ``names`` were listed faster than CENSUS_RATE since ``start``: disks need time for other work."""
    while (ahead := start + names / CENSUS_RATE - time.monotonic()) > 0:
        time.sleep(min(ahead, CHECKPOINT_SECONDS))
        job.progress()


def _sample(listing: Census) -> dict[str, list[Member]]:
    """The first chunks of a range that have copies, and their holders. The caller looks them up in the sketches."""
    holders = ((chunk_hash, entry.holders) for chunk_hash, entry in listing.entries.items() if entry.holders)
    return dict(islice(holders, DENIED_SAMPLE))


def _exact_tallies() -> list[Node]:
    """Wait for the batches in flight, and then read the nodes: their tallies now include all earlier writes."""
    batches.wait_for_batches()
    return list(Node.objects.all())


def _rebuild_what_contradicts(topology: Topology, result: Mapping[str, Any]) -> list[str]:
    """Rebuild the sketches of nodes whose listing and tallies differ by more than can have changed during the census.

    Returns the ids of the nodes whose sketches are rebuilt.
    """
    node_ids = []
    now = {node.node_id: node for node in _exact_tallies()}
    for member in topology.members:
        if member.node_id in result["silent"] or member.node_id not in result["tallies"]:
            continue
        chunks, removals = result["tallies"][member.node_id]
        fewest, most = Node(chunks=chunks, removals=removals).listed_until(now[member.node_id])
        listed = result["found"].get(member.node_id, 0)
        if not fewest - TALLY_SLACK <= listed <= most + TALLY_SLACK:
            log.warning("census.contradicted", node=member.node_id, listed=listed, fewest=fewest, most=most)
            _request_rebuild(member.node_id)
            node_ids.append(member.node_id)
    return node_ids
