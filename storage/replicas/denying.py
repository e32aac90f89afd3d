"""Find false negatives: copies that exist although a sketch denies them. A false negative ends trust in the sketch
(invariant 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from storage.cluster.topology import Member, Topology
from storage.models import Job, Node
from storage.replicas.finding import ask
from storage.tracking import proof

log = structlog.get_logger(__name__)


def rebuild_what_denies(topology: Topology, holders: Mapping[str, Sequence[Member]], sizes: Mapping[str, int]) -> int:
    """Queue rebuilds of the sketches that deny copies which were found; returns the number of denied copies.

    The volumes are asked for denied copies once more, because a sketch rightly denies a copy that has been removed
    since it was found.

    Args:
        topology: the nodes.
        holders: chunk hash → nodes on which a copy has been found.
        sizes: chunk hash → size in bytes.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    denied = proof.denied(topology, holders) if holders else {}
    again = ask(topology, {h: sizes[h] for hashes in denied.values() for h in hashes}).holders if denied else {}
    number = 0
    for node_id, hashes in denied.items():
        there = [h for h in hashes if any(member.node_id == node_id for member in again[h])]
        if there:
            log.error("sketch.denies", node=node_id, chunks=there)
            Node.distrust_sketches([node_id])
            Job.request(Job.Kind.REBUILD_SKETCH, node_id)
        number += len(there)
    return number
