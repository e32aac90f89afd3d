"""How many chunks were placed over which set of nodes.

PostgreSQL records no location of a chunk. How many chunks were placed over a set of nodes follows from dates alone:
when each content was made, when each node joined, and when the cluster was last rebalanced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage.cluster.topology import Topology
from storage.models import Content
from storage.recent import Recent

GOOD_SECONDS = 60.0  # A process keeps the spans for this long, because it reads every content to make them.


@dataclass(frozen=True)
class Span:
    """A span of time in which the set of nodes did not change.

    Attributes:
        node_ids: the nodes of today that were there in this span.
        chunks: replication factor → number of chunks that were stored in this span and not placed again later.
    """

    node_ids: frozenset[str]
    chunks: Mapping[int, int]


@dataclass(frozen=True)
class _History:
    nodes: tuple[object, ...]
    spans: list[Span]


def spans(topology: Topology) -> list[Span]:
    """The spans of the cluster's life, the first one first.

    A rebalance of the cluster places every chunk again, so nodes that joined before it count as there from the
    beginning. When a node leaves, placement puts its copies on other nodes, as if the node had never been there. So a
    node that has left is in no span.
    """
    nodes = (topology.cluster.rebalanced_at, *((member.node_id, member.joined_at) for member in topology.members))
    history = _recent.see(lambda: _History(nodes, _spans(topology)), fits=lambda history: history.nodes == nodes)
    return history.spans


_recent: Recent[_History] = Recent(GOOD_SECONDS)


def _spans(topology: Topology) -> list[Span]:
    everybody = frozenset(member.node_id for member in topology.members)
    first = Content.objects.order_by("id").values_list("created_at", flat=True).first()
    beginning = max(filter(None, (first, topology.cluster.rebalanced_at)), default=None)
    late = {
        member.node_id: member.joined_at for member in topology.members if beginning and member.joined_at > beginning
    }
    if not late:
        return [Span(everybody, Content.chunks_by_target())]
    boundaries = sorted(set(late.values()))
    counted = Content.chunks_by_span(boundaries)
    life = []
    for place, chunks in enumerate(counted):
        absent = {node_id for node_id, joined_at in late.items() if joined_at in boundaries[place:]}
        life.append(Span(everybody - absent, chunks))
    return life
