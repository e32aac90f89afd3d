"""Where a chunk probably lies, from the sketches alone."""

from __future__ import annotations

from dataclasses import dataclass

from storage.cluster.topology import Topology
from storage.exceptions import NoSuchChunk
from storage.models import Chunk, Tally
from storage.tracking import routing


@dataclass(frozen=True)
class Candidate:
    """A node that may hold the chunk.

    Attributes:
        node_id: the id of the node.
        online: whether the node answers.
        register: the value of the chunk's register in the node's sketch; 0 if the node has no sketch.
        probability: the probability that the node holds the chunk.
    """

    node_id: str
    online: bool
    register: int
    probability: float


def _mean_replicas(topology: Topology) -> float:
    """The average number of copies of a chunk, from the tallies."""
    chunks = sum(Tally.totals(Tally.What.CHUNKS).values())
    return sum(member.stored_chunks for member in topology.members) / max(chunks, 1)


def candidates(chunk_hash: str) -> list[Candidate]:
    """All nodes, in the order in which a download asks them for the chunk.

    Raises:
        NoSuchChunk: no file has the chunk.
    """
    chunk = Chunk.objects.filter(hash=chunk_hash, condemned_at=None).first()
    if chunk is None:
        raise NoSuchChunk(f"no chunk {chunk_hash}")
    topology = Topology.load()
    target = Chunk.objects.targets([chunk.pk])[chunk.pk]
    routes = routing.routes(topology, [chunk_hash], target, _mean_replicas(topology))
    return [
        Candidate(
            (member := routes.members[i]).node_id,
            member.online,
            routes.registers[0][i],
            routes.probabilities[0][i],
        )
        for i in routes.order[0]
    ]
