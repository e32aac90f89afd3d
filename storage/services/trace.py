"""Trace losses: find the chunks behind registers that are too low, ask the nodes for these chunks only, and mend them.

The phases: ``trace.read``, ``trace.count_chunks``, ``trace.stream``, ``trace.ask``; and to mend the chunks,
``trace.locate``, ``trace.count`` and ``trace.write``.

Every chunk on record is hashed to its register twice, which takes seconds for ten million chunks. The first pass counts
the chunks of each register. A register is too low if it counts fewer copies than its chunks should have. The second
pass names the chunks of the registers that are too low. No node is listed, and the nodes are asked for no other chunk.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from storage import counters, phases
from storage.cluster.topology import Member, Topology
from storage.counters import Event
from storage.exceptions import VolumeOffline
from storage.models import Chunk, Job
from storage.models.fields import DIGEST_SIZE
from storage.replicas import finding, moving
from storage.replicas.denying import rebuild_what_denies
from storage.replicas.finding import ASKED_CHUNKS
from storage.replicas.restoring import bring_back_or_tell
from storage.tracking import proof
from storage.tracking.proof import Evidence, Levels, Mask

log = structlog.get_logger(__name__)

IDS = 1 << 20  # The number of row ids per step. PostgreSQL answers with 32 MiB of hashes at most.
KEPT_STEPS = 16  # The registers of the chunks of the first 16 steps are kept in memory, at most 64 MiB.
KEPT_REGISTERS = 1000  # A result names at most this many registers.
COUNTED = ("streamed", "asked", "short", "lost", "added", "unreadable", "denied")


def trace(job: Job) -> dict[str, Any]:
    """Carry out a trace of losses.

    Returns:
        The numbers of chunks ``streamed`` from PostgreSQL, of chunks ``asked`` for, of chunks that were ``short`` of
        copies, of chunks ``lost`` (without any copy), of copies ``added``, of chunks ``unreadable`` and of copies
        ``denied`` by the sketches of their nodes; and the ``seconds`` that it took. ``complete`` is False if nothing
        could be proven, because the copies of a node no longer counted or a sketch was no longer trusted. A complete
        trace also returns how many registers ``remaining`` are too low after it, and how many of these are
        ``unexplained``, because no chunk that is known to lack copies falls into them. ``registers`` lists the
        numbers of the remaining registers, at most 1000 of them, for a sketch of ``n_prime`` registers.

    Raises:
        LeaseLost: the job is another worker's.
        TurnEnded: more urgent work waits.
        VolumeOffline: a node does not answer.
        StoreUnavailable: Redis does not answer.
    """
    result: dict[str, Any] = dict.fromkeys(COUNTED, 0) | {"seconds": 0.0, "last_id": 0} | (job.result or {})
    result["last_id"] = result["last_id"] or Chunk.objects.last_id()
    job.result = result
    phases.enter("trace.read")
    topology = Topology.load()
    start, looked = time.monotonic(), proof.look(topology)
    if looked is None:
        return _end(job, result | {"complete": False})
    evidence, levels = looked
    phases.enter("trace.count_chunks")
    chunks, kept = _chunks_by_register(job, levels)
    low = levels.without_copies(chunks, max(evidence.target, 1))
    unmended: list[str] = []
    for step in job.steps(result["last_id"] // IDS + 1):
        phases.enter("trace.stream")
        if step in kept and not low[kept[step]].any():
            result["streamed"] += len(kept[step])
            continue
        digests = Chunk.objects.digests(range(step * IDS, (step + 1) * IDS))
        for batch in _suspects(digests, levels.registers(digests), low):
            unmended += _examine(job, batch)
        result["streamed"] += len(digests) // DIGEST_SIZE
        result["seconds"], start = result["seconds"] + time.monotonic() - start, time.monotonic()
    return _end(job, result | {"complete": True} | _what_remains(topology, evidence, unmended))


def _chunks_by_register(job: Job, levels: Levels) -> tuple[NDArray[np.uint16], dict[int, NDArray[np.uint32]]]:
    """Count the settled chunks on record in each register: those that should have all their copies now.

    Each turn of the job reads the sketches and counts again.

    Returns:
        The number of chunks of each register, shape ``[N']``; and step → the registers of its chunks, for the first
        ``KEPT_STEPS`` steps. A step whose registers are in this result is read again only if one of these registers is
        too low.
    """
    chunks = np.zeros(levels.n_prime, np.uint16)
    kept: dict[int, NDArray[np.uint32]] = {}
    before = Chunk.objects.unsettled().digests
    for step in range((job.result or {})["last_id"] // IDS + 1):
        registers = levels.registers(Chunk.objects.digests(range(step * IDS, (step + 1) * IDS)))
        # The added 1 has the array's own type: that is forty times as fast as a Python number.
        np.add.at(chunks, registers, np.uint16(1))
        if step < KEPT_STEPS:
            kept[step] = registers.astype(np.uint32)
        job.progress()
    proof.leave_out(chunks, levels, before + Chunk.objects.unsettled().digests)
    return chunks, kept


def _suspects(digests: bytes, registers: NDArray[np.int64], low: Mask) -> Iterator[list[str]]:
    """Yield the hashes of the chunks whose registers are too low, at most ``ASKED_CHUNKS`` at a time."""
    places = np.flatnonzero(low[registers]) * DIGEST_SIZE
    for start in range(0, len(places), ASKED_CHUNKS):
        yield [digests[at : at + DIGEST_SIZE].hex() for at in places[start : start + ASKED_CHUNKS].tolist()]


def _examine(job: Job, chunk_hashes: Sequence[str]) -> list[str]:
    """Ask all nodes for chunks, and mend the short chunks; returns the chunks that lacked copies."""
    phases.enter("trace.ask")
    result = job.result or {}
    chunks = {chunk.chunk_hash: chunk for chunk in Chunk.objects.settled_among(chunk_hashes)}
    topology = Topology.load()
    sizes = {chunk_hash: chunk.size for chunk_hash, chunk in chunks.items()}
    answers = finding.ask(topology, sizes)
    if answers.silent:
        raise VolumeOffline(f"{answers.silent[0].node_id} does not answer")
    holders = answers.holders
    result["asked"] += len(chunks)
    result["denied"] += rebuild_what_denies(topology, holders, sizes)
    targets = {chunk_hash: chunk.target for chunk_hash, chunk in chunks.items()}
    short = {h: members for h, members in holders.items() if members and sum(m.counts for m in members) < targets[h]}
    lost = _still_wanted([chunk_hash for chunk_hash, members in holders.items() if not members])
    restored, lost = bring_back_or_tell(topology, lost, job.progress)
    if restored:
        back = finding.ask(topology, {chunk_hash: sizes[chunk_hash] for chunk_hash in restored}).holders
        short |= {h: members for h, members in back.items() if sum(member.counts for member in members) < targets[h]}
    result["short"] += len(short)
    result["lost"] += len(lost)
    counters.add(Event.LOSSES_TRACED, len(short) + len(lost))
    if lost:
        moving.outdate_health(lost)
    _mend(job, topology, short, targets)
    job.progress()
    job.make_way()
    return [*short, *lost]


def _still_wanted(chunk_hashes: Sequence[str]) -> list[str]:
    """Leave out the chunks that were deleted, or pinned by an upload, after the nodes had been asked for them."""
    return sorted(chunk.chunk_hash for chunk in Chunk.objects.settled_among(chunk_hashes)) if chunk_hashes else []


def _mend(job: Job, topology: Topology, short: Mapping[str, list[Member]], targets: Mapping[str, int]) -> None:
    """Make the missing copies. The chunks with the fewest copies come first."""
    result = job.result or {}
    in_order = dict(sorted(short.items(), key=lambda item: len(item[1])))
    moves = moving.plan(topology, in_order, {chunk_hash: targets[chunk_hash] for chunk_hash in in_order})
    for batch in moving.batches([replace(move, drop=[]) for move in moves if move.add]):
        moved = moving.carry_out(topology, batch, operation="trace")
        result["added"] += moved.added
        result["unreadable"] += moved.unreadable
        counters.add(Event.REPLICAS_REPAIRED, moved.added)
        moving.outdate_health([move.chunk_hash for move in batch])
        job.progress()


def _what_remains(topology: Topology, before: Evidence, unmended: Sequence[str]) -> dict[str, Any]:
    """Describe the registers that are still too low, for the result.

    No new trace begins at once for the registers in the result.
    """
    after = proof.find(topology)
    left = after.and_of(before).low if after else before.low[:0]
    unmended_registers = proof.registers_of_chunks(topology, unmended, before.n_prime)
    unexplained = np.setdiff1d(left, unmended_registers)
    registers = [int(register) for register in left[:KEPT_REGISTERS]]
    if len(unexplained):
        _explain(topology, unexplained, before.n_prime)
    return {
        "remaining": len(left),
        "unexplained": len(unexplained),
        "registers": registers,
        "n_prime": before.n_prime,
    }


def _explain(topology: Topology, registers: NDArray[np.uint32], n_prime: int) -> None:
    """Queue the jobs that find out why registers are too low although no chunk on record lacks copies.

    Either registers count copies of chunks that are not on record, and a census condemns these copies. Or registers
    count copies that do not exist, and a rebuild of the sketches removes these counts. A rebuild is queued for
    registers that are still unexplained in the first trace after a census.
    """
    last, census = Job.objects.last_of(Job.Kind.TRACE), Job.objects.last_of(Job.Kind.CENSUS)
    if last and census and _ended(census) > _ended(last) and (last.result or {}).get("n_prime") == n_prime:
        stubborn = sorted({*registers.tolist()} & {*(last.result or {}).get("registers", ())})
        for node_id in proof.occupants(topology, stubborn, n_prime) if stubborn else ():
            Job.request(Job.Kind.REBUILD_SKETCH, node_id)
    Job.ensure(Job.Kind.CENSUS, "cluster")


def _ended(job: Job) -> datetime:
    assert job.finished_at is not None
    return job.finished_at


def _end(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    job.result = result
    del result["last_id"]
    log.info("losses.traced", job=str(job.pk), **{name: result[name] for name in (*COUNTED, "seconds", "complete")})
    if result["short"] or result["lost"]:
        log.warning("losses.proven", job=str(job.pk), short=result["short"], lost=result["lost"])
    return result
