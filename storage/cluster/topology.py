"""The nodes as a worker sees them: rows of PostgreSQL joined with the lanes to their volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from threading import Lock
from urllib.parse import urljoin

from storage.cluster import placement
from storage.conf import configuration
from storage.exceptions import ForeignVolume, NoSuchNode
from storage.models import Cluster, Node
from storage.recent import Recent
from storage.volumes import Identity, Lane, Space, open_volume

_lanes: dict[tuple[str, str, str], Lane] = {}
_lock = Lock()
_recent: Recent[Topology] = Recent(seconds=1.0)


@dataclass(frozen=True)
class Member:
    """One node and the lane to its volume."""

    node_id: str
    state: str
    online: bool
    writable: bool
    zone: str
    weight: float
    capacity: float
    stored_bytes: int
    stored_chunks: int
    sketch_epoch: int
    generation: int
    joined_at: datetime
    identity: Identity
    lane: Lane

    @cached_property
    def candidate(self) -> placement.Candidate:
        """This node as placement sees it: by its capacity, which uploads do not change, so that copies stay placed."""
        return placement.Candidate(self.node_id, self.capacity, self.zone)

    @property
    def counts(self) -> bool:
        """Whether a replica here counts towards a target: a draining or offline node's does not."""
        return self.online and self.state == Node.State.ACTIVE

    @property
    def accepts(self) -> bool:
        """Whether new replicas may go here."""
        return self.counts and self.writable and self.weight > 0

    def look(self) -> Space:
        """Ask the volume itself whether it is there and what room it has, whatever this process thought of it before.

        Raises:
            VolumeUnasked: this process could not ask.
            VolumeError: it is not there, does not answer, or is another node's.
        """
        volume = self.lane.volume
        if not self.lane.look(volume.identity).same_volume(self.identity):
            raise ForeignVolume(f"the volume of {self.node_id} carries another identity")
        return self.lane.look(volume.space)


@dataclass(frozen=True)
class Topology:
    """All nodes that are not retired, in the order of their ids, and the cluster row."""

    cluster: Cluster
    members: tuple[Member, ...]

    @cached_property
    def candidates(self) -> tuple[placement.Candidate, ...]:
        return tuple(member.candidate for member in self.members)

    @cached_property
    def sketches(self) -> tuple[object, ...]:
        """What the nodes' sketches are, and how far each is trusted."""
        cluster = self.cluster
        nodes = tuple((member.node_id, member.sketch_epoch) for member in self.members)
        return cluster.uuid, cluster.sketch_seed, cluster.base_n_prime, cluster.n_prime, cluster.tau, nodes

    @classmethod
    def load(cls) -> Topology:
        """Read PostgreSQL now."""
        return _recent.keep(cls._read)

    @classmethod
    def _read(cls) -> Topology:
        cluster, nodes = Node.all_with_cluster()
        capacities = zip(nodes, _capacities(nodes), strict=True)
        return cls(cluster, tuple(_member(cluster, node, capacity) for node, capacity in capacities))

    @classmethod
    def recent(cls, seconds: float | None = None) -> Topology:
        """What PostgreSQL said a second ago, or so many, at most twice as many: good enough to order reads."""
        return _recent.see(cls._read, seconds=seconds)

    @classmethod
    def last_known(cls) -> Topology | None:
        """What this process saw last, whatever its age: for when PostgreSQL is away."""
        return _recent.last

    @property
    def online(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.online)

    @property
    def accepting(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.accepts)

    def member(self, node_id: str) -> Member:
        """The member of that id.

        Raises:
            NoSuchNode: there is none.
        """
        for member in self.members:
            if member.node_id == node_id:
                return member
        raise NoSuchNode(f"no node {node_id}")


def forget() -> None:
    """Drop what this process remembers, after a change to the nodes."""
    _recent.forget()


def identity_of(cluster: Cluster, node: Node) -> Identity:
    """The identity that the node's volume must carry."""
    return Identity(str(cluster.uuid), node.node_id, str(node.uuid))


def absolute_url(node: Node) -> str:
    """Where the node's volume is; a relative URL starts at STORAGE_DIR/nodes, so that the whole folder can move."""
    return urljoin(f"{configuration().nodes_dir.as_uri()}/", node.url)


def _capacities(nodes: Sequence[Node]) -> list[float]:
    """Each node's part of its file system: nodes on one file system have equal parts of it.

    A node that was not probed yet is taken to be as large as the others are on average.
    """
    sharing = Counter(node.file_system for node in nodes)
    parts = [node.file_system_bytes / sharing[node.file_system] for node in nodes]
    known = [part for part in parts if part]
    average = sum(known) / len(known) if known else 1.0
    return [part or average for part in parts]


def _member(cluster: Cluster, node: Node, capacity: float) -> Member:
    identity = identity_of(cluster, node)
    key = (node.node_id, absolute_url(node), identity.node)
    with _lock:
        if key not in _lanes:
            _lanes[key] = Lane(open_volume(absolute_url(node), identity))
        lane = _lanes[key]
    lane.returned(node.online_changed_at if node.online else None)
    return Member(
        node.node_id,
        node.state,
        node.online,
        node.writable,
        node.zone,
        node.weight,
        capacity,
        stored_bytes=node.bytes,
        stored_chunks=node.chunks,
        sketch_epoch=node.sketch_epoch,
        generation=node.generation,
        joined_at=node.created_at,
        identity=identity,
        lane=lane,
    )
