"""Which nodes probably hold a chunk. The only door to ``sketches``.

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
from redis.backoff import NoBackoff
from redis.retry import Retry

from sketches.estimators import Estimate, union_estimate
from sketches.exceptions import ShadowLost, SketchError, StoreUnavailable
from sketches.lcrs import level_counts
from sketches.store import SketchStore, trusted
from storage import placement
from storage.models import Cluster, Node
from storage.topology import Member, Topology

log = structlog.get_logger(__name__)

BATCHES_IN_FLIGHT = 0x0CC0_5E7C  # key of the advisory lock; any constant will do


@lru_cache(maxsize=1)
def connect() -> redis.Redis:
    """This process's connections to Redis; none of them waits long."""
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
    )


@lru_cache(maxsize=4)
def _store(namespace: str, seed: int, base_n_prime: int, tau: int) -> SketchStore:
    return SketchStore(connect(), namespace, seed=seed, base_n_prime=base_n_prime, tau=tau)


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


def locate(topology: Topology, chunk_hashes: Sequence[str]) -> list[list[Member]]:
    """For each chunk, all nodes in the order in which to ask for it.

    Nodes whose register is not zero come first, then by preference of placement; offline nodes last. A zero register
    only orders (RACES 14): every node is in every list.
    """
    members = topology.members
    if not chunk_hashes or not members:
        return [[] for _ in chunk_hashes]
    likely = np.zeros((len(chunk_hashes), len(members)), dtype=bool)
    try:
        lookup = store_of(topology.cluster).lookup([member.node_id for member in members], chunk_hashes)
        likely = (lookup.counts > 0).T
    except StoreUnavailable as error:
        log.warning("sketch.unavailable", error=str(error))
    preferred = placement.rank(chunk_hashes, [_candidate(member) for member in members])
    place = np.argsort(preferred, axis=1)
    offline = np.array([not member.online for member in members])
    order = np.lexsort((place, ~likely, np.broadcast_to(offline, likely.shape)), axis=1)
    return [[members[i] for i in row] for row in order]


def preferences(topology: Topology, chunk_hashes: Sequence[str]) -> list[list[Member]]:
    """For each chunk, the nodes that accept replicas, in the order of placement."""
    members = topology.accepting
    if not chunk_hashes or not members:
        return [[] for _ in chunk_hashes]
    order = placement.rank(chunk_hashes, [_candidate(member) for member in members])
    return [[members[i] for i in row] for row in order]


def _candidate(member: Member) -> placement.Candidate:
    return placement.Candidate(member.node_id, max(member.weight, 1e-3), member.zone)


# -- statistics ------------------------------------------------------------


@dataclass(frozen=True)
class SketchStatistics:
    """What the online nodes' sketches say.

    Attributes:
        level_counts: number of registers at each level.
        union: distinct chunks, estimated.
        unions: node id → distinct chunks on that node, estimated.
        trusted: whether every online node's sketch is trusted; otherwise they are being rebuilt.
    """

    level_counts: list[int]
    union: Estimate
    unions: dict[str, Estimate]
    trusted: bool


def statistics(topology: Topology) -> SketchStatistics | None:
    """Level counts and unions of the online nodes; None while a sketch of theirs is missing and being rebuilt.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    online = topology.online
    snapshot = store_of(topology.cluster).snapshot([member.node_id for member in online])
    if any(member.node_id not in snapshot.sketches for member in online):
        return None
    sketches = [snapshot.sketches[member.node_id] for member in online]
    n_prime = min((sketch.n_prime for sketch in sketches), default=topology.cluster.n_prime)
    levels = [int(n) for n in level_counts(sketches, topology.cluster.tau)] if sketches else [n_prime]
    unions = {
        member.node_id: union_estimate(int(np.count_nonzero(sketch.registers == 0)), sketch.n_prime)
        for member, sketch in zip(online, sketches, strict=True)
    }
    sound = all(trusted(snapshot.headers[m.node_id], m.sketch_epoch, snapshot.run_id) for m in online)
    return SketchStatistics(levels, union_estimate(levels[0], n_prime), unions, sound)


def untrusted(topology: Topology) -> list[Member]:
    """The online nodes whose sketches have to be rebuilt: missing, stale, or of another size.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    online = topology.online
    lookup = store_of(topology.cluster).lookup([member.node_id for member in online], [])
    return [
        member
        for member in online
        if (header := lookup.headers[member.node_id]) is None
        or not trusted(header, member.sketch_epoch, lookup.run_id)
        or header.n_prime != topology.cluster.n_prime
        or header.tau != topology.cluster.tau
    ]


__all__ = [
    "Estimate",
    "ShadowLost",
    "SketchError",
    "SketchStatistics",
    "StoreUnavailable",
    "batch_in_flight",
    "builds",
    "connect",
    "count",
    "locate",
    "preferences",
    "statistics",
    "store_of",
    "uncount",
    "untrusted",
    "wait_for_batches",
]
