"""Rebuild a node's sketch from its volume, in the shadow of the one in use (RACES 24).

The phases: ``rebuild.open``, ``rebuild.list``, ``rebuild.swap``.
"""

from __future__ import annotations

from contextlib import suppress

import structlog

from storage import phases, routing
from storage.models import Job, Node
from storage.routing import StoreUnavailable
from storage.topology import Topology

log = structlog.get_logger(__name__)

FILL_CHUNKS = 2000


def rebuild(job: Job) -> dict[str, int]:
    """Carry out a rebuild job, whose subject is a node id; returns what was found.

    Raises:
        LeaseLost: the job is another worker's.
        ShadowLost: Redis lost the shadow on the way: start again.
        StoreUnavailable: Redis does not answer.
        VolumeError: the volume cannot be listed.
        LookupError: there is no such node.
    """
    node_id = str(job.subject)
    topology = Topology.load()
    member = topology.member(node_id)
    store = routing.store_of(topology.cluster)
    phases.enter("rebuild.open")
    # The epoch is the one read before: a writer that cannot count from here on makes the new sketch untrusted too.
    build = store.open_shadow(node_id, member.sketch_epoch, topology.cluster.n_prime)
    try:
        # Batches that counted before the shadow was there may still be writing what the listing would miss.
        routing.wait_for_batches()
        before = Node.objects.get(node_id=node_id)
        phases.enter("rebuild.list")
        chunks = size = 0
        for i in range(256):
            found = member.lane.call(lambda prefix: list(member.lane.volume.replicas(prefix)), f"{i:02x}")
            for start in range(0, len(found), FILL_CHUNKS):
                batch = found[start : start + FILL_CHUNKS]
                store.fill_shadow(node_id, build, [replica.chunk_hash for replica in batch])
            chunks += len(found)
            size += sum(replica.size for replica in found)
            if i % 32 == 0:
                job.progress(done=i, total=256)
        phases.enter("rebuild.swap")
        store.swap_shadow(node_id, build)
    except BaseException:
        with suppress(StoreUnavailable):
            store.discard_shadow(node_id, build)
        raise
    _correct_tally(before, chunks, size)
    log.info("sketch.rebuilt", job=str(job.pk), node=node_id, chunks=chunks)
    return {"chunks": chunks, "bytes": size}


def _correct_tally(before: Node, chunks: int, size: int) -> None:
    """Replace the tallies by what was listed, unless a batch has written, and hence tallied, since then."""
    routing.wait_for_batches()
    unchanged = Node.objects.filter(pk=before.pk, chunks=before.chunks, bytes=before.bytes)
    unchanged.update(chunks=chunks, bytes=size)
