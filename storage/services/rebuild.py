"""Rebuild a node's sketch from its volume, in the shadow of the one in use (RACES 24).

The phases: ``rebuild.open``, ``rebuild.list``, ``rebuild.swap``.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Any

import structlog

from storage import counters, phases, routing, trust
from storage.counters import Event
from storage.models import Job, Node
from storage.routing import StoreUnavailable
from storage.topology import Member, Topology

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
        None if none was in use; and whether the node was ``quiet``: its tally did not change. Only then are the
        differences all wrong counts, now mended; a removal that was just under way may still show as a false negative
        of one register. On a busy node they are upper bounds: a chunk that was written and listed is twice in the new
        sketch, and one that was listed and then removed is in that one alone.

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
    store = routing.store_of(topology.cluster)
    n_prime = topology.cluster.n_prime
    phases.enter("rebuild.open")
    # The epoch is the one read before: a writer that cannot count from here on makes the new sketch untrusted too.
    build = store.open_shadow(node_id, member.sketch_epoch, n_prime)
    try:
        # Batches that counted before the shadow was there may still be writing what the listing would miss.
        routing.wait_for_batches()
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
    found = {
        "reason": (job.result or {}).get("reason", "requested"),
        "chunks": chunks,
        "bytes": size,
        "n_prime": n_prime,
        "quiet": _correct_tally(before, chunks, size),
        "differences": asdict(differences) if differences else None,
    }
    counters.add(Event.SKETCHES_REBUILT)
    if differences and found["quiet"]:
        counters.add(Event.SKETCH_DRIFT, differences.differing)
    log.info("sketch.rebuilt", job=str(job.pk), node=node_id, **found)
    return found


def _list_into_shadow(job: Job, topology: Topology, member: Member, build: bytes) -> tuple[int, int]:
    """Count what is on the volume, prefix by prefix; returns how many chunks and bytes."""
    store = routing.store_of(topology.cluster)
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


def _correct_tally(before: Node, chunks: int, size: int) -> bool:
    """Replace the tallies by what was listed, unless a batch has written, and hence tallied, since then.

    Returns whether none has.
    """
    routing.wait_for_batches()
    unchanged = Node.objects.filter(pk=before.pk, chunks=before.chunks, bytes=before.bytes)
    return unchanged.update(chunks=chunks, bytes=size) == 1
