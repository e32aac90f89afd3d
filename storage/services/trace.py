"""Trace losses: find the chunks behind registers that are too low, ask the nodes for these alone, and mend them.

The phases: ``trace.read``, ``trace.count_chunks``, ``trace.stream``, ``trace.ask``, and of what is mended
``trace.locate``, ``trace.count`` and ``trace.write``.

Every chunk on record is hashed to its register, twice, which takes seconds for ten million: first to know how many
chunks each register has, then to name those of the registers that count fewer copies than these should have. No node
is listed, and no other chunk is asked for.
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

IDS = 1 << 20  # row ids of a step: PostgreSQL answers with 32 MiB of hashes at most
KEPT_STEPS = 16  # The registers of so many steps are kept in memory, at most 64 MiB.
KEPT_REGISTERS = 1000  # A result names so many registers.
COUNTED = ("streamed", "asked", "short", "lost", "added", "unreadable", "denied")


def trace(job: Job) -> dict[str, Any]:
    """Carry out a trace of losses.

    Returns:
        Chunks ``streamed`` from PostgreSQL, ``asked`` for, found ``short`` of copies, ``lost``: without any; copies
        ``added``, chunks ``unreadable``, copies ``denied`` by the sketches of their nodes, and ``seconds``. Whether it
        is ``complete``: not if copies of a node had ceased to count, or a sketch to be trusted. The number of registers
        ``remaining`` that are still too low, ``unexplained``, of which no chunk known to lack copies is the reason,
        and with ``n_prime`` the first of these ``registers``.

    Raises:
        LeaseLost: the job is another worker's.
        TurnEnded: more urgent work waits.
        VolumeOffline: a node does not answer.
        StoreUnavailable: Redis does not answer.
    """
    found: dict[str, Any] = dict.fromkeys(COUNTED, 0) | {"seconds": 0.0, "last_id": 0} | (job.result or {})
    found["last_id"] = found["last_id"] or Chunk.objects.last_id()
    job.result = found
    phases.enter("trace.read")
    topology = Topology.load()
    begun, looked = time.monotonic(), proof.look(topology)
    if looked is None:
        return _end(job, found | {"complete": False})
    evidence, levels = looked
    phases.enter("trace.count_chunks")
    chunks, kept = _chunks_by_register(job, levels)
    low = levels.without_copies(chunks, max(evidence.target, 1))
    unmended: list[str] = []
    for step in job.steps(found["last_id"] // IDS + 1):
        phases.enter("trace.stream")
        if step in kept and not low[kept[step]].any():
            found["streamed"] += len(kept[step])
            continue
        digests = Chunk.objects.digests(range(step * IDS, (step + 1) * IDS))
        for batch in _suspects(digests, levels.registers(digests), low):
            unmended += _examine(job, batch)
        found["streamed"] += len(digests) // DIGEST_SIZE
        found["seconds"], begun = found["seconds"] + time.monotonic() - begun, time.monotonic()
    return _end(job, found | {"complete": True} | _what_remains(topology, evidence, unmended))


def _chunks_by_register(job: Job, levels: Levels) -> tuple[NDArray[np.uint16], dict[int, NDArray[np.uint32]]]:
    """Count the settled chunks on record that each register has; in each turn anew, as the sketches are read.

    Returns:
        The numbers of chunks; and the registers of the chunks of the first steps, as far as they fit into memory: of
        these, only steps with a suspect are read again.
    """
    chunks = np.zeros(levels.n_prime, np.uint16)
    kept: dict[int, NDArray[np.uint32]] = {}
    before = Chunk.objects.unsettled().digests
    for step in range((job.result or {})["last_id"] // IDS + 1):
        registers = levels.registers(Chunk.objects.digests(range(step * IDS, (step + 1) * IDS)))
        # One of the same type as the numbers: forty times as fast as a number of Python's.
        np.add.at(chunks, registers, np.uint16(1))
        if step < KEPT_STEPS:
            kept[step] = registers.astype(np.uint32)
        job.progress()
    proof.leave_out(chunks, levels, before + Chunk.objects.unsettled().digests)
    return chunks, kept


def _suspects(digests: bytes, registers: NDArray[np.int64], low: Mask) -> Iterator[list[str]]:
    """The chunks whose registers are too low, as many at a time as are asked for together."""
    places = np.flatnonzero(low[registers]) * DIGEST_SIZE
    for start in range(0, len(places), ASKED_CHUNKS):
        yield [digests[at : at + DIGEST_SIZE].hex() for at in places[start : start + ASKED_CHUNKS].tolist()]


def _examine(job: Job, chunk_hashes: Sequence[str]) -> list[str]:
    """Ask all nodes for chunks, and mend those that are short; returns the chunks that lacked copies."""
    phases.enter("trace.ask")
    found = job.result or {}
    wanted = {chunk.chunk_hash: chunk for chunk in Chunk.objects.settled_among(chunk_hashes)}
    topology = Topology.load()
    sizes = {chunk_hash: chunk.size for chunk_hash, chunk in wanted.items()}
    asked = finding.ask(topology, sizes)
    if asked.silent:
        raise VolumeOffline(f"{asked.silent[0].node_id} does not answer")
    holders = asked.holders
    found["asked"] += len(wanted)
    found["denied"] += rebuild_what_denies(topology, holders, sizes)
    targets = {chunk_hash: chunk.target for chunk_hash, chunk in wanted.items()}
    short = {h: held for h, held in holders.items() if held and sum(m.counts for m in held) < targets[h]}
    lost = _still_wanted([chunk_hash for chunk_hash, held in holders.items() if not held])
    restored, lost = bring_back_or_tell(topology, lost, job.progress)
    if restored:
        back = finding.ask(topology, {chunk_hash: sizes[chunk_hash] for chunk_hash in restored}).holders
        short |= {h: held for h, held in back.items() if sum(member.counts for member in held) < targets[h]}
    found["short"] += len(short)
    found["lost"] += len(lost)
    counters.add(Event.LOSSES_TRACED, len(short) + len(lost))
    if lost:
        moving.outdate_health(lost)
    _mend(job, topology, short, targets)
    job.progress()
    job.make_way()
    return [*short, *lost]


def _still_wanted(chunk_hashes: Sequence[str]) -> list[str]:
    """Without those that have been deleted, or taken up by an upload, since they were asked for."""
    return sorted(chunk.chunk_hash for chunk in Chunk.objects.settled_among(chunk_hashes)) if chunk_hashes else []


def _mend(job: Job, topology: Topology, short: Mapping[str, list[Member]], targets: Mapping[str, int]) -> None:
    """Make the copies that are missing, of the most endangered chunks first."""
    found = job.result or {}
    in_order = dict(sorted(short.items(), key=lambda item: len(item[1])))
    moves = moving.plan(topology, in_order, {chunk_hash: targets[chunk_hash] for chunk_hash in in_order})
    for batch in moving.batches([replace(move, drop=[]) for move in moves if move.add]):
        moved = moving.carry_out(topology, batch, operation="trace")
        found["added"] += moved.added
        found["unreadable"] += moved.unreadable
        counters.add(Event.REPLICAS_REPAIRED, moved.added)
        moving.outdate_health([move.chunk_hash for move in batch])
        job.progress()


def _what_remains(topology: Topology, before: Evidence, unmended: Sequence[str]) -> dict[str, Any]:
    """What is still too low after all that could be done, and does not call for another trace at once."""
    after = proof.find(topology)
    left = after.and_of(before).low if after else before.low[:0]
    known = proof.registers_of_chunks(topology, unmended, before.n_prime)
    unexplained = np.setdiff1d(left, known)
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
    """Have the cause found of registers that are too low although no chunk on record lacks copies.

    They count copies of chunks that are not on record: a census condemns these. What is left after it are counts of
    copies that are nowhere: building the sketches anew takes these away.
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


def _end(job: Job, found: dict[str, Any]) -> dict[str, Any]:
    job.result = found
    del found["last_id"]
    log.info("losses.traced", job=str(job.pk), **{name: found[name] for name in (*COUNTED, "seconds", "complete")})
    if found["short"] or found["lost"]:
        log.warning("losses.proven", job=str(job.pk), short=found["short"], lost=found["lost"])
    return found
