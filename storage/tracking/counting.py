"""Counting chunks in the sketches before they are written, and un-counting them after they are removed.

Redis holds only hints: a count that fails makes the sketch untrusted, and harms nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from storage.cluster.topology import Topology
from storage.models import Cluster, Node
from storage.tracking.store import StoreUnavailable, store_of

log = structlog.get_logger(__name__)


def count(
    topology: Topology, add: Mapping[str, Sequence[str]], ensure: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Count copies that are about to be written, and copies that were found, before anything relies on the sketches.

    Args:
        topology: the nodes.
        add: node id → chunk hashes that will be written there.
        ensure: node id → chunk hashes found there, which should be counted already; a zero register is set to 1.
    """
    try:
        missing = store_of(topology.cluster).update(add, {}, ensure or {})
    except StoreUnavailable as error:
        # The copies are not counted, so a zero register no longer proves absence. The new sketch epoch is committed
        # before the copies are written (RACES 23).
        Node.distrust_sketches({*add, *(ensure or {})})
        log.warning("sketch.uncounted", nodes=sorted(add), error=str(error))
        return
    if missing:
        # Perhaps the sketches are not gone, but N_PRIME has changed. A process that uses the old N_PRIME cannot count
        # in the new sketches.
        Node.distrust_sketches(missing)
        log.info("sketch.missing", nodes=sorted(missing))


def builds(topology: Topology, node_ids: Sequence[str]) -> dict[str, bytes]:
    """Node id → id of the rebuild that made its sketch. ``uncount`` skips a sketch that was made after this call."""
    try:
        headers = store_of(topology.cluster).lookup(node_ids, []).headers
    except StoreUnavailable:
        return {}
    return {node_id: header.build for node_id, header in headers.items() if header is not None}


def uncount(topology: Topology, removed: Mapping[str, Sequence[str]], builds: Mapping[str, bytes]) -> None:
    """Un-count replicas whose removal is durable. A failure leaves an over-count until the next rebuild (RACES 25)."""
    chunks = {node_id: hashes for node_id, hashes in removed.items() if node_id in builds}
    try:
        store_of(topology.cluster).update({}, chunks, builds=builds)
    except StoreUnavailable as error:
        log.warning("sketch.overcounted", nodes=sorted(chunks), error=str(error))


def begin(cluster: Cluster, node: Node) -> None:
    """Give an empty sketch to a node that was just created and holds nothing yet.

    Raises:
        SketchError: Redis does not answer. The next probe will find that the sketch is missing, and have it rebuilt.
    """
    store = store_of(cluster)
    build = store.open_shadow(node.node_id, node.sketch_epoch, cluster.n_prime)
    store.swap_shadow(node.node_id, build)
