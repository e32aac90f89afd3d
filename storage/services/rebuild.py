"""Rebuild a node's sketch from its volume, in the shadow of the one in use (RACES 24).

The phases: ``rebuild.open``, ``rebuild.list``, ``rebuild.swap``.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from storage import counters, phases
from storage.cluster.topology import Member, Topology
from storage.counters import Event
from storage.models import Job, Node
from storage.replicas.removing import database_time, trashed_at
from storage.tracking import batches, trust
from storage.tracking.store import StoreUnavailable, store_of
from storage.tracking.trust import Reason

log = structlog.get_logger(__name__)

FILL_CHUNKS = 2000
PREFIXES = 256
PROGRESS_EVERY = 8  # prefixes: many listings of a large node fit into a lease


def rebuild(job: Job) -> dict[str, Any]:
    """Carry out a rebuild job, whose subject is a node id.

    If the cluster grows meanwhile, the sketch that is swapped in is of the former size, as its header says: it counts
    and routes like the one before it, and the probe finds it again.

    Returns:
        The ``reason``; the ``chunks`` and ``bytes`` listed; ``n_prime``, the size of the new sketch in registers; the
        ``differences`` of the sketch in use, just before the swap, from the new one, by the fields of ``Comparison``,
        None if none was in use; how many copies the listing ``missed`` that the node should have had; and whether the
        node was ``quiet``: it gained and lost no copy meanwhile. Only then are the differences all wrong counts, now
        mended. On a busy node they are upper bounds: a chunk that was written and listed is twice in the new sketch,
        and one that was listed and then removed is in that one alone.

    Raises:
        LeaseLost: the job is another worker's.
        ShadowLost: Redis lost the shadow on the way: start again.
        StoreUnavailable: Redis does not answer.
        VolumeError: the volume cannot be listed.
        NoSuchNode: there is no such node.
    """
    node_id = str(job.subject)
    topology = Topology.load()
    member = topology.member(node_id)
    store = store_of(topology.cluster)
    n_prime = topology.cluster.n_prime
    phases.enter("rebuild.open")
    # The epoch is the one read before: a writer that cannot count from here on makes the new sketch untrusted too.
    build = store.open_shadow(node_id, member.sketch_epoch, n_prime)
    begun = database_time()
    try:
        # Batches that counted before the shadow was there may still be writing what the listing would miss.
        batches.wait_for_batches()
        before = Node.objects.get(node_id=node_id)
        phases.enter("rebuild.list")
        chunks, size = _list_into_shadow(job, topology, member, build)
        phases.enter("rebuild.swap")
        differences = trust.compare_with_shadow(topology.cluster, node_id, build)
        store.swap_shadow(node_id, build)
    except BaseException:
        with suppress(StoreUnavailable):
            store.discard_shadow(node_id, build)
        raise
    missed, quiet = _correct_tally(before, Replicas(chunks, size), _removed_since(member, begun))
    found = {
        "reason": (job.result or {}).get("reason", "requested"),
        "chunks": chunks,
        "bytes": size,
        "n_prime": n_prime,
        "missed": missed,
        "quiet": quiet,
        "differences": asdict(differences) if differences else None,
    }
    counters.add(Event.SKETCHES_REBUILT)
    if differences and quiet:
        counters.add(Event.SKETCH_DRIFT, differences.differing)
    if missed:
        _raise_alarm(before, found)
    log.info("sketch.rebuilt", job=str(job.pk), node=node_id, **found)
    return found


def _list_into_shadow(job: Job, topology: Topology, member: Member, build: bytes) -> tuple[int, int]:
    """Count what is on the volume, prefix by prefix; returns how many chunks and bytes."""
    store = store_of(topology.cluster)
    chunks = size = 0
    for i in range(PREFIXES):
        found = member.lane.call(lambda prefix: list(member.lane.volume.replicas(prefix)), f"{i:02x}")
        for start in range(0, len(found), FILL_CHUNKS):
            batch = found[start : start + FILL_CHUNKS]
            store.fill_shadow(member.node_id, build, [replica.chunk_hash for replica in batch])
        chunks += len(found)
        size += sum(replica.size for replica in found)
        if i % PROGRESS_EVERY == 0:
            job.progress(done=i, total=PREFIXES)
    return chunks, size


@dataclass(frozen=True)
class Replicas:
    """How many replicas a node has, and their bytes."""

    chunks: int
    bytes: int


def _removed_since(member: Member, begun: float) -> int:
    """How many copies have been removed since a time of PostgreSQL's clock, as the trash tells in milliseconds."""
    trashed = member.lane.call(lambda: list(member.lane.volume.trashed()))
    return sum(begun - 0.001 <= trashed_at(entry.token) < float("inf") for entry in trashed)


def _correct_tally(before: Node, listed: Replicas, removed: int) -> tuple[int, bool]:
    """Compare the tallies with what was listed, then replace them, unless the node has gained or lost copies meanwhile.

    Writes and removals hold their batch until they have tallied, so that both tallies are those of what was on the
    volume, when the listing began and after it ended. In between the listing has seen no fewer copies than were there
    at first, without those removed since; and no fewer than are left now, if none was written: the smaller number is
    what a node without a loss lists at least.

    The tally of a busy node that lacks copies is lowered by as many as can have been missed, or the next rebuild would
    raise the same alarm again. Too low a tally only raises none until a rebuild of the quiet node makes it exact.

    Args:
        before: the node as the listing began.
        listed: what was listed.
        removed: copies removed since then.

    Returns:
        How many copies are missing for certain; and whether the node was quiet.
    """
    batches.wait_for_batches()
    after = Node.objects.get(pk=before.pk)
    missed = max(0, min(before.chunks - removed, after.chunks) - listed.chunks)
    unchanged = Node.objects.filter(pk=before.pk, chunks=before.chunks, bytes=before.bytes)
    quiet = not removed and unchanged.update(chunks=listed.chunks, bytes=listed.bytes) == 1
    if missed and not quiet:
        lacking = max(before.chunks, after.chunks) - listed.chunks
        Node.tally({before.node_id: (-lacking, min(0, listed.bytes - max(before.bytes, after.bytes)))})
    return missed, quiet


def _raise_alarm(before: Node, found: dict[str, Any]) -> None:
    """Say that copies have vanished, and have the node compared with what it should hold.

    A rebuild that a comparison of this node has asked for asks for no other one, and the tally has been corrected: the
    rebuild at the end of the comparison that is asked for here finds nothing amiss.
    """
    counters.add(Event.COPIES_MISSED, found["missed"])
    told = {name: found[name] for name in ("reason", "missed", "quiet", "differences")}
    log.warning("sketch.contradicted", node=before.node_id, counted=before.chunks, listed=found["chunks"], **told)
    if found["reason"] != Reason.LISTED:
        Job.ensure(Job.Kind.RECONCILE, before.node_id)
