"""Which nodes probably hold a chunk. The door to ``sketches`` for reads and writes.

Redis is a hint: whatever fails here orders reads worse and makes statistics say so, and harms nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import redis
import structlog
from django.conf import settings
from django.db import connection
from numpy.typing import NDArray
from redis.backoff import NoBackoff
from redis.retry import Retry

from sketches.estimators import Estimate
from sketches.estimators.membership import candidates
from sketches.exceptions import ShadowLost, SketchError, StoreUnavailable
from sketches.store import SketchStore, trusted
from sketches.wire import HEADER_SIZE
from storage import placement
from storage.conf import configuration
from storage.models import Cluster, Node
from storage.topology import Member, Topology

log = structlog.get_logger(__name__)

BATCHES_IN_FLIGHT = 0x0CC0_5E7C  # key of the advisory lock; any constant will do
PREFERRED = 0.95  # share of replicas that lie where placement would put them now
STALE_LOSS = 0.5  # share of its chunks that a sketch which is not trusted is taken to lack


@lru_cache(maxsize=1)
def connect() -> redis.Redis:
    """This process's connections to Redis; none of them waits long."""
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
    )


@lru_cache(maxsize=4)
def _store(namespace: str, seed: int, base_n_prime: int, tau: int) -> SketchStore:
    return SketchStore(connect(), namespace, seed=seed, base_n_prime=base_n_prime, tau=tau)


def sketch_size(n_prime: int) -> int:
    """Bytes in Redis of a sketch with so many registers."""
    return HEADER_SIZE + n_prime


def store_of(cluster: Cluster) -> SketchStore:
    return _store(f"occ:{cluster.uuid}", cluster.sketch_seed, cluster.base_n_prime, cluster.tau)


# -- writing ---------------------------------------------------------------


@contextmanager
def batch_in_flight() -> Iterator[None]:
    """Held by whoever counts and then writes, so that a rebuild can wait for batches that a shadow missed.

    It is a shared advisory lock of this thread's PostgreSQL session. A worker that dies gives it up, and its writes
    have ended then too; one that only loses its session fails at its next commit.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock_shared(%s)", [BATCHES_IN_FLIGHT])
    try:
        yield
    finally:
        if connection.connection is not None and not connection.connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock_shared(%s)", [BATCHES_IN_FLIGHT])


def wait_for_batches() -> None:
    """Return once every batch that was in flight at the call has ended."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [BATCHES_IN_FLIGHT])
        cursor.execute("SELECT pg_advisory_unlock(%s)", [BATCHES_IN_FLIGHT])


def count(
    topology: Topology, add: Mapping[str, Sequence[str]], ensure: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Count chunks that are about to be written, and those found, before anything relies on them.

    Args:
        topology: the nodes.
        add: node id → chunk hashes that will be written there.
        ensure: node id → chunk hashes found there, which should have been counted once.
    """
    try:
        missing = store_of(topology.cluster).update(add, {}, ensure or {})
    except StoreUnavailable as error:
        # What cannot be counted must not be trusted to be absent: the epoch is committed before the write (RACES 23).
        Node.distrust_sketches({*add, *(ensure or {})})
        log.warning("sketch.uncounted", nodes=sorted(add), error=str(error))
        return
    if missing:
        # The same holds for a process that has not heard yet of another N_PRIME, whose sketches it cannot count in.
        Node.distrust_sketches(missing)
        log.info("sketch.missing", nodes=sorted(missing))


def builds(topology: Topology, node_ids: Sequence[str]) -> dict[str, bytes]:
    """The builds of the nodes' sketches, read before a removal so that ``uncount`` finds the same ones."""
    try:
        headers = store_of(topology.cluster).lookup(node_ids, []).headers
    except StoreUnavailable:
        return {}
    return {node_id: header.build for node_id, header in headers.items() if header is not None}


def uncount(topology: Topology, removed: Mapping[str, Sequence[str]], builds: Mapping[str, bytes]) -> None:
    """Un-count replicas whose removal is durable. What fails leaves an over-count, to be rebuilt away (RACES 25)."""
    known = {node_id: hashes for node_id, hashes in removed.items() if node_id in builds}
    try:
        store_of(topology.cluster).update({}, known, builds=builds)
    except StoreUnavailable as error:
        log.warning("sketch.overcounted", nodes=sorted(known), error=str(error))


def begin(cluster: Cluster, node: Node) -> None:
    """Give a node that was just created, and holds nothing yet, the sketch that says so.

    Raises:
        SketchError: Redis does not answer; the probe finds the sketch missing and has it rebuilt.
    """
    store = store_of(cluster)
    build = store.open_shadow(node.node_id, node.sketch_epoch, cluster.n_prime)
    store.swap_shadow(node.node_id, build)


# -- reading ---------------------------------------------------------------


@dataclass(frozen=True)
class Routes:
    """Where to look for some chunks.

    Attributes:
        members: all nodes.
        registers: uint8 ``[chunks, nodes]``; 0 where there is no sketch.
        probabilities: that a node holds a chunk, ``[chunks, nodes]``.
        order: the nodes of each chunk, ``[chunks, nodes]``: online ones first, the most probable first.
    """

    members: tuple[Member, ...]
    registers: NDArray[np.uint8]
    probabilities: NDArray[np.float64]
    order: NDArray[np.intp]


def routes(topology: Topology, chunk_hashes: Sequence[str], target: int) -> Routes:
    """Weigh what the registers say by where placement would put a chunk of ``target`` replicas now.

    A zero register of a trusted sketch makes a node improbable, not impossible: it only orders (RACES 14), and every
    node is in every order.
    """
    members = topology.members
    shape = (len(chunk_hashes), len(members))
    if 0 in shape:
        return Routes(members, np.zeros(shape, np.uint8), np.zeros(shape), np.zeros(shape, np.intp))
    place = np.argsort(placement.rank(chunk_hashes, [candidate_of(member) for member in members]), axis=1)
    registers, n_prime, loss = np.zeros(shape, np.uint8), topology.cluster.n_prime, np.ones(len(members))
    sizes = np.full(len(members), n_prime)
    try:
        lookup = store_of(topology.cluster).lookup([member.node_id for member in members], chunk_hashes)
    except StoreUnavailable as error:
        log.warning("sketch.unavailable", error=str(error))
    else:
        registers = lookup.counts.T
        for position, member in enumerate(members):
            if header := lookup.headers[member.node_id]:
                sizes[position] = header.n_prime
                loss[position] = 0.0 if trusted(header, member.sketch_epoch, lookup.run_id) else STALE_LOSS
    held = [member.stored_chunks for member in members]
    tau = max(topology.cluster.tau, int(registers.max()))
    weighed = candidates(registers, held, sizes, tau, _prior(place, target), loss)
    offline = np.broadcast_to([not member.online for member in members], shape)
    order = np.lexsort((place, -weighed.probabilities, offline), axis=1)
    return Routes(members, registers, weighed.probabilities, order)


def locate(topology: Topology, chunk_hashes: Sequence[str]) -> list[list[Member]]:
    """For each chunk, all nodes in the order in which to ask for it."""
    found = routes(topology, chunk_hashes, configuration().replication_factor)
    members = np.fromiter(found.members, object, len(found.members))
    rows: list[list[Member]] = members[found.order].tolist()
    return rows


def _prior(place: NDArray[np.intp], target: int) -> NDArray[np.float64]:
    """The probability, before looking, that the node at each place of a chunk's order holds it."""
    others = max(place.shape[1] - target, 1)
    return np.where(place < target, PREFERRED, min((1 - PREFERRED) * target / others, 1 - PREFERRED))


def preferences(topology: Topology, chunk_hashes: Sequence[str]) -> list[list[Member]]:
    """For each chunk, the nodes that accept replicas, in the order of placement."""
    members = topology.accepting
    if not chunk_hashes or not members:
        return [[] for _ in chunk_hashes]
    order = placement.rank(chunk_hashes, [candidate_of(member) for member in members])
    return [[members[i] for i in row] for row in order]


def candidate_of(member: Member) -> placement.Candidate:
    """A node as placement sees it."""
    return placement.Candidate(member.node_id, max(member.weight, 1e-3), member.zone)


__all__ = [
    "Estimate",
    "Routes",
    "ShadowLost",
    "SketchError",
    "StoreUnavailable",
    "batch_in_flight",
    "builds",
    "candidate_of",
    "connect",
    "count",
    "locate",
    "preferences",
    "routes",
    "sketch_size",
    "store_of",
    "uncount",
    "wait_for_batches",
]
