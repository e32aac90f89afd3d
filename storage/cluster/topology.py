"""The nodes as a process sees them: rows of PostgreSQL joined with the lanes to their volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from threading import Lock

from django.db import DatabaseError, connection, transaction

from storage.cluster import placement
from storage.conf import configuration
from storage.exceptions import ForeignVolume, NoSuchNode, VolumeOffline
from storage.models import Cluster, Job, Node
from storage.recent import Recent
from storage.volumes import Identity, Lane, Space, addresses, open_volume

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
        """This node as placement sees it.

        The weight is the node's capacity. Uploads do not change the capacity, so copies do not become misplaced.
        """
        return placement.Candidate(self.node_id, self.capacity, self.zone)

    @property
    def counts(self) -> bool:
        """True if a replica on this node counts towards a target: the node is neither draining nor offline."""
        return self.online and self.state == Node.State.ACTIVE

    @property
    def accepts(self) -> bool:
        """True if new replicas may go to this node."""
        return self.counts and self.writable and self.weight > 0

    def look(self) -> Space:
        """Ask the volume for its identity and its room, even if the lane's breaker is open.

        Raises:
            VolumeUnasked: this process could not ask the volume.
            VolumeError: the volume is not there, does not answer, or belongs to another node.
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
        """A value that changes if the set of nodes, a sketch epoch, or the seed or size of the sketches changes."""
        cluster = self.cluster
        nodes = tuple((member.node_id, member.sketch_epoch) for member in self.members)
        return cluster.uuid, cluster.sketch_seed, cluster.base_n_prime, cluster.n_prime, cluster.tau, nodes

    @classmethod
    def load(cls) -> Topology:
        """Read the nodes from PostgreSQL now."""
        return _recent.keep(cls._read)

    @classmethod
    def _read(cls) -> Topology:
        cluster, nodes = Node.all_with_cluster()
        capacities = zip(nodes, _capacities(nodes), strict=True)
        return cls(cluster, tuple(_member(cluster, node, capacity) for node, capacity in capacities))

    @classmethod
    def recent(cls, seconds: float | None = None) -> Topology:
        """The nodes as PostgreSQL had them up to ``seconds`` ago, by default 1: good enough to order reads.

        While another thread reads PostgreSQL, the result may be twice as old.
        """
        return _recent.see(cls._read, seconds=seconds)

    @classmethod
    def last_known(cls) -> Topology | None:
        """The nodes as this process saw them last, however long ago: for times when PostgreSQL is away."""
        return _recent.last

    @property
    def online(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.online)

    @property
    def accepting(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.accepts)

    def member(self, node_id: str) -> Member:
        """The member with this id.

        Raises:
            NoSuchNode: no member has this id.
        """
        for member in self.members:
            if member.node_id == node_id:
                return member
        raise NoSuchNode(f"no node {node_id}")


def forget() -> None:
    """Drop the topology that this process remembers: call this after a change to the nodes."""
    _recent.forget()


def identity_of(cluster: Cluster, node: Node) -> Identity:
    """The identity that the node's volume must carry."""
    return Identity(str(cluster.uuid), node.node_id, str(node.uuid))


def absolute_url(node: Node) -> str:
    """The absolute URL of a node's volume. A relative URL starts at STORAGE_DIR/nodes, so this directory can move."""
    return addresses.absolute(node.url, configuration().nodes_dir)


def _capacities(nodes: Sequence[Node]) -> list[float]:
    """Each node's part of its file system in bytes: nodes on one file system have equal parts.

    A node that was not probed yet counts with the average part of the other nodes.
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
            on_return = partial(_expect_returns, node.node_id)
            compress = configuration().compress
            _lanes[key] = Lane(open_volume(absolute_url(node), identity, compress=compress, on_return=on_return))
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


def _expect_returns(node_id: str) -> None:
    """Record that replicas which were un-counted may be back: the sketch may deny them (invariant 3).

    Raises:
        VolumeOffline: PostgreSQL does not answer.
    """
    is_new = connection.connection is None
    try:
        with transaction.atomic():
            Node.distrust_sketches([node_id])
            Job.ensure(Job.Kind.RECONCILE, node_id)
    except DatabaseError as error:
        raise VolumeOffline(f"{node_id} waits for PostgreSQL: {error}") from error
    finally:
        if is_new:  # This thread belongs to the lane, and needs no connection after this call.
            connection.close()
