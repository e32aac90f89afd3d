"""Mend one chunk whose copies are suspect, or every chunk of the cluster that has too few copies.

The phases: ``repair.judge``, ``repair.locate``, ``repair.count``, ``repair.write``, and for the whole cluster
``repair_all.locate``, ``repair_all.count``, ``repair_all.write``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import structlog
from django.db.models import Q

from storage import counters, phases
from storage.cluster.topology import Topology
from storage.counters import Event
from storage.jobs import maintenance
from storage.models import Chunk, Content, Job
from storage.replicas import census, moving
from storage.replicas.census import Census
from storage.replicas.judging import judge
from storage.replicas.moving import Moved
from storage.replicas.restoring import bring_back
from storage.replicas.writing import store

log = structlog.get_logger(__name__)


def repair(job: Job) -> dict[str, int]:
    """Carry out a repair job, whose subject is a chunk hash: judge its copies, quarantine bad copies, make missing
    copies.

    Raises:
        LeaseLost: the job is another worker's.
    """
    chunk = Chunk.objects.filter(hash=job.subject).first()
    if chunk is None:
        return {"quarantined": 0, "good": 0}
    phases.enter("repair.judge")
    topology = Topology.load()
    good, data, quarantined = judge(topology, chunk.hash, chunk.size)
    target = Chunk.objects.targets([chunk.pk])[chunk.pk]
    changed = quarantined > 0
    if data is None and target and bring_back(topology, [chunk.hash]):
        good, data, _ = judge(topology, chunk.hash, chunk.size)
        changed = True
    job.progress(done=0, total=1)
    if data is not None and target:
        stored = store(topology, {chunk.hash: data}, {chunk.hash: target}, operation="repair")
        good = stored.holders[chunk.hash]
        counters.add(Event.REPLICAS_REPAIRED, stored.written)
        changed |= stored.written > 0
    # If this repair has changed no copy, only the health summaries that contradict the copies found are made again. So
    # a wrong report of a bad copy costs only this check, and a lost chunk does not cause repairs and summaries without
    # end.
    contradicted = ~Q(retrievable=bool(good)) | Q(min_replication__gt=len(good))
    moving.outdate_health([chunk.hash], of=None if changed else contradicted)
    log.info("repair.done", job=str(job.pk), chunk=chunk.hash, quarantined=quarantined, good=len(good))
    return {"quarantined": quarantined, "good": len(good)}


def plan_all() -> dict[int, tuple[int, int]]:
    """Count the short chunks: number of copies that they have → (chunks, bytes to write). This changes nothing.

    Chunks without any copy cannot be repaired, so they have no bytes to write.
    """
    topology = Topology.load()
    chunks: Counter[int] = Counter()
    size: Counter[int] = Counter()
    for prefix in census.prefixes(topology):
        for entry in census.take(topology, prefix).entries.values():
            if entry.short:
                chunks[len(entry.holders)] += 1
                size[len(entry.holders)] += entry.short * entry.size * bool(entry.holders)
    return {copies: (chunks[copies], size[copies]) for copies in sorted(chunks)}


def request_all() -> Job:
    """Queue the repair of the whole cluster."""
    return maintenance.ensure(Job.Kind.REPAIR_ALL, "all")


def repair_all(job: Job) -> dict[str, Any]:
    """Bring every chunk to its target: chunks with one copy first, then chunks with two copies, and so on.

    The first pass lists the cluster, mends the chunks with one copy, and notes the numbers of copies of the other short
    chunks. After the first pass the cluster is listed once more for each number of copies that was noted. No chunk is
    remembered between the passes. So a cluster that lost a node with ten million chunks needs no more memory than a
    healthy cluster.

    Returns:
        The number of copies ``added``, of chunks ``lost`` (without a copy while all nodes answer) and of chunks
        ``unreadable``.

    Raises:
        LeaseLost: the job is another worker's.
        TurnEnded: more urgent work waits.
    """
    largest = Content.largest_target()
    result: dict[str, Any] = {"added": 0, "lost": 0, "unreadable": 0, "levels": largest, "short": []} | (
        job.result or {}
    )
    job.result = result
    levels = result["levels"]  # 0 in an empty store.
    prefixes = census.prefixes(Topology.load(), job.total // levels) if levels else []
    for step in job.steps(levels * len(prefixes)):
        level, place = divmod(step, len(prefixes))
        copies = level + 1
        if level and not _is_worth(copies, result):
            continue
        topology = Topology.load()
        listing = census.take(topology, prefixes[place])
        if not level and listing.lost and bring_back(topology, listing.lost, job.progress):
            listing = census.take(topology, prefixes[place])
        _mend(job, topology, listing, copies, last=copies == levels)
        if not level:
            _remember(result, listing)
    log.info("repair_all.done", job=str(job.pk), added=result["added"], lost=result["lost"])
    return {name: result[name] for name in ("added", "lost", "unreadable")}


def _is_worth(copies: int, result: dict[str, Any]) -> bool:
    """True if the first pass found short chunks with ``copies`` copies.

    A pass mends the short chunks that have one certain number of copies. The last pass also mends all short chunks that
    have more copies than that.
    """
    last = copies == result["levels"]
    return any(had == copies or (last and had > copies) for had in result["short"])


def _remember(result: dict[str, Any], listing: Census) -> None:
    """Note in ``result`` how many copies short chunks have, and add up the lost chunks."""
    short = [entry for entry in listing.entries.values() if entry.short]
    result["short"] = sorted({*result["short"], *(len(entry.holders) for entry in short if entry.holders)})
    result["lost"] += len(listing.lost)


def _mend(job: Job, topology: Topology, listing: Census, copies: int, *, last: bool) -> None:
    short = {
        chunk_hash: entry
        for chunk_hash, entry in listing.entries.items()
        if entry.short and (len(entry.holders) == copies or (last and len(entry.holders) > copies))
    }
    targets = {chunk_hash: entry.target for chunk_hash, entry in short.items()}
    moves = moving.plan(topology, {chunk_hash: entry.holders for chunk_hash, entry in short.items()}, targets)
    for batch in moving.batches([replace(move, drop=[]) for move in moves if move.add]):
        _tell(job, moving.carry_out(topology, batch, operation="repair_all"), [move.chunk_hash for move in batch])


def _tell(job: Job, moved: Moved, chunk_hashes: Sequence[str]) -> None:
    result = job.result or {}
    result["added"] += moved.added
    result["unreadable"] += moved.unreadable
    counters.add(Event.REPLICAS_REPAIRED, moved.added)
    moving.outdate_health(chunk_hashes)
    job.progress()
    job.make_way()
