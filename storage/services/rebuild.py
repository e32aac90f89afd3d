"""Rebuild a node's sketch from a listing of its volume (RACES 24).

The new sketch is made as a *shadow* next to the sketch in use. Workers count in both sketches, until the shadow
replaces the sketch in use.

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
from storage.tracking import batches, trust
from storage.tracking.store import StoreUnavailable, store_of
from storage.tracking.trust import Reason

log = structlog.get_logger(__name__)

FILL_CHUNKS = 2000
PREFIXES = 256
# This many prefixes are listed between two progress reports. To list them takes less time than a lease, also on a
# large node.
PROGRESS_EVERY = 8


def rebuild(job: Job) -> dict[str, Any]:
    """Carry out a rebuild job, whose subject is a node id.

    If the sketches grow during the rebuild, the new sketch has the former size, and its header says so. A sketch of the
    former size can be used until the probe has it rebuilt once more.

    Returns:
        The ``reason`` for the rebuild; the ``chunks`` and ``bytes`` listed; ``n_prime``, the size of the new sketch in
        registers; the ``differences`` between the sketch that was in use just before the swap and the new one, by the
        fields of ``Comparison``, None if no sketch was in use; how many copies the listing ``missed`` that the node
        should have had; and ``quiet``, True if the node gained and lost no copy during the rebuild. If the node was
        quiet, all differences are wrong counts, which are now mended. On a busy node the differences are upper bounds:
        a chunk that was both written and listed is counted twice in the new sketch, and a chunk that was listed and
        then removed is counted in the new sketch only.

    Raises:
        LeaseLost: the job is another worker's.
        ShadowLost: Redis lost the shadow during the rebuild, which has to start again.
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
    # The epoch was read before the shadow was opened. A writer that cannot count from here on raises the epoch, and so
    # makes the new sketch untrusted too.
    build = store.open_shadow(node_id, member.sketch_epoch, n_prime)
    try:
        # Batches that counted before the shadow existed may still be writing copies that the listing would miss.
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
    missed, quiet = _correct_tally(before, Replicas(chunks, size))
    result = {
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
        _raise_alarm(before, result)
    log.info("sketch.rebuilt", job=str(job.pk), node=node_id, **result)
    return result


def _list_into_shadow(job: Job, topology: Topology, member: Member, build: bytes) -> tuple[int, int]:
    """Count the copies on the volume into the shadow, prefix by prefix; returns the numbers of chunks and bytes."""
    store = store_of(topology.cluster)
    chunks = size = 0
    for i in range(PREFIXES):
        replicas = member.lane.call(lambda prefix: list(member.lane.volume.replicas(prefix)), f"{i:02x}")
        for start in range(0, len(replicas), FILL_CHUNKS):
            batch = replicas[start : start + FILL_CHUNKS]
            store.fill_shadow(member.node_id, build, [replica.chunk_hash for replica in batch])
        chunks += len(replicas)
        size += sum(replica.size for replica in replicas)
        if i % PROGRESS_EVERY == 0:
            job.progress(done=i, total=PREFIXES)
    return chunks, size


@dataclass(frozen=True)
class Replicas:
    """How many replicas a node has, and their bytes."""

    chunks: int
    bytes: int


def _correct_tally(before: Node, listed: Replicas) -> tuple[int, bool]:
    """Compare the node's tallies with the listing. If the node is quiet, the numbers of the listing become its tallies.

    A node is quiet if it gained and lost no copy during the listing.

    PostgreSQL keeps the number of a node's copies: the node's tally. A batch updates the tally before it ends, and this
    job has waited for the batches. So the tally is exact at two times: when the listing began (``before``), and now.
    ``Node.listed_until`` says how many copies the listing must have found at least.

    If a busy node lacks copies, its tally is lowered by the largest number of copies that can be missing. If the tally
    was not lowered, the next rebuild would raise the same alarm again. A tally that is too low does no harm except that
    it hides losses, until a rebuild during which the node gains and loses no copy makes the tally exact.

    Args:
        before: the node when the listing began.
        listed: the numbers of copies and bytes listed.

    Returns:
        How many copies are missing for certain; and whether the node was quiet.
    """
    batches.wait_for_batches()
    after = Node.objects.get(pk=before.pk)
    fewest, _ = before.listed_until(after)
    missed = max(0, fewest - listed.chunks)
    unchanged = Node.objects.filter(pk=before.pk, chunks=before.chunks, bytes=before.bytes, removals=before.removals)
    quiet = unchanged.update(chunks=listed.chunks, bytes=listed.bytes) == 1
    if missed and not quiet:
        lacking = max(before.chunks, after.chunks) - listed.chunks
        Node.tally({before.node_id: (-lacking, min(0, listed.bytes - max(before.bytes, after.bytes)))})
    return missed, quiet


def _raise_alarm(before: Node, result: dict[str, Any]) -> None:
    """Log that copies have vanished, and queue a comparison of the node with what it should hold (reconcile).

    Reconciles and rebuilds do not queue each other without end. A reconcile ends with a rebuild, and that rebuild
    queues no further reconcile. The tally has been corrected, so the rebuild at the end of the reconcile finds no
    copies missing.
    """
    counters.add(Event.COPIES_MISSED, result["missed"])
    fields = {name: result[name] for name in ("reason", "missed", "quiet", "differences")}
    log.warning("sketch.contradicted", node=before.node_id, counted=before.chunks, listed=result["chunks"], **fields)
    if result["reason"] != Reason.LISTED:
        Job.ensure(Job.Kind.RECONCILE, before.node_id)
