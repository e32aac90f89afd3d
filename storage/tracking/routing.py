"""Which nodes probably hold a chunk: where readers ask first.

Redis holds only hints. If Redis fails, readers ask more nodes in vain, and the statistics say so. A failure of Redis
harms nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray

from sketches.estimators.membership import candidates, holders
from sketches.store import Lookup, Snapshot, trusted
from storage.cluster import placement
from storage.cluster.topology import Member, Topology
from storage.conf import configuration
from storage.recent import Recent
from storage.tracking.store import StoreUnavailable, sketch_size, store_of

log = structlog.get_logger(__name__)

PREFERRED = 0.9  # This share of all replicas is assumed to lie where placement would put them now.
# Nodes with at least this probability are asked in the order of placement. The order differs from chunk to chunk, so
# reads are spread over the nodes. All reads of one chunk ask the nodes in the same order, so the kernel caches only one
# copy of the chunk.
LIKELY = 0.5
STALE_LOSS = 0.5  # An untrusted sketch is assumed to lack this share of its node's chunks.
CERTAIN = 0.95  # A missing copy is reported if its node held it with this probability, so few reports are false.
RECENT = 1.0  # Reads use sketches that this process fetched at most this many seconds ago.
# If the sketches of all nodes together have more bytes than RECENT_BYTES, no process fetches them each second: a read
# asks Redis for the registers of its chunk alone.
RECENT_BYTES = 4 << 20

# Probabilities, shape [2, 256, m]: by whether placement prefers the node (0 or 1), by its register, by node.
Odds: TypeAlias = list[list[list[float]]]


@dataclass(frozen=True)
class Routes:
    """Where to look for some chunks; each list has a row for each chunk, with a number for each of m nodes.

    Attributes:
        members: all nodes.
        registers: the chunk's register on each node; 0 if the node has no sketch.
        probabilities: the probability that the node holds the chunk.
        order: indices into ``members``, in the order in which to ask. Online nodes come before offline nodes. Among the
            online nodes, and among the offline nodes, the likely nodes come first in the order of placement, then the
            other nodes by falling probability.
    """

    members: tuple[Member, ...]
    registers: list[list[int]]
    probabilities: list[list[float]]
    order: list[list[int]]


def routes(topology: Topology, chunk_hashes: Sequence[str], target: int, mean_replicas: float) -> Routes:
    """Find where chunks probably are, from the registers of all nodes and from where placement would put them now.

    Downloads ask the nodes in the order of the result. A zero register of a trusted sketch makes a node improbable, not
    impossible: the register decides about the order only (RACES 14), and every node is in every order.

    Args:
        topology: the nodes.
        chunk_hashes: the chunks.
        target: the number of replicas that each of the chunks should have, at least 1.
        mean_replicas: the mean number of replicas of all chunks.
    """
    table, answer = _routes_now(topology, chunk_hashes, target)
    if not table.members or not chunk_hashes:
        return table
    sizes, loss, tau = _sketches(topology, answer)
    places = np.argsort(placement.rank(chunk_hashes, topology.candidates), axis=1)
    together = holders(
        np.array(table.registers, np.uint8),
        target,
        [member.stored_chunks for member in table.members],
        max(mean_replicas, 1.0),
        sizes,
        tau,
        _prior(topology, target)[(places < target).astype(np.intp)],
        loss,
    )
    return replace(table, probabilities=together.probabilities.tolist())


def _routes_now(topology: Topology, chunk_hashes: Sequence[str], target: int) -> tuple[Routes, Lookup | None]:
    """The routes by what Redis says at this moment; and the answer of Redis, None if there is none."""
    node_ids = [member.node_id for member in topology.members]
    try:
        answer: Lookup | None = store_of(topology.cluster).lookup(node_ids, chunk_hashes)
    except StoreUnavailable as error:
        log.warning("sketch.unavailable", error=str(error))
        answer = None
    registers = answer.counts.T.tolist() if answer else _unknown(topology, chunk_hashes)
    trust = _trusted(topology, answer)
    return _routes(topology, chunk_hashes, target, registers, _odds(topology, answer, target), all(trust)), answer


class Route(NamedTuple):
    """Where to look for one chunk.

    Most chunks are on the first node that is asked. So ``is_certain`` is computed only when a copy is missing.

    Attributes:
        order: all nodes, in the order in which to ask them.
        members: all nodes; each of the following lists has one item for each node, in this order.
        trusted: True if the node's sketch is trusted.
        registers: the value of the chunk's register in the node's sketch; 0 if the node has no sketch.
        probabilities: the probability that the node holds the chunk.
        target: the number of replicas that the chunk is assumed to have.
    """

    order: Sequence[Member]
    members: Sequence[Member] = ()
    trusted: Sequence[bool] = ()
    registers: Sequence[int] = ()
    probabilities: Sequence[float] = ()
    target: int = 0

    def is_certain(self, member: Member) -> bool:
        """Tell whether a trusted sketch is nearly certain that the node holds the chunk.

        A high probability is not enough: it may rest on where placement would put the chunk now, but the chunk may have
        been placed before nodes were added. So the chunk's registers must also show that they count no other chunk:
        their sum, plus one for each node without a trusted sketch, must not exceed the number of copies that the chunk
        should have.
        """
        if member not in self.members:
            return False
        column = self.members.index(member)
        if not self.trusted[column] or self.probabilities[column] < CERTAIN:
            return False
        return 0 < sum(self.registers) <= self.target - self.trusted.count(False)


def locate(topology: Topology, chunk_hashes: Sequence[str], factor: int | None = None) -> list[Route]:
    """The route of each chunk, by what the sketches said up to a second ago.

    Args:
        topology: the nodes.
        chunk_hashes: the chunks.
        factor: the number of replicas that these chunks should have, by default REPLICATION_FACTOR. Only
            ``Route.is_certain`` uses ``factor``: the order always rests on REPLICATION_FACTOR.
    """
    target = configuration().replication_factor
    if len(topology.members) * sketch_size(topology.cluster.n_prime) > RECENT_BYTES:
        return locate_now(topology, chunk_hashes, factor)
    sketches = _recent.see(lambda: _Seen.now(topology, target), fits=lambda sketches: sketches.is_of(topology))
    registers = sketches.registers(chunk_hashes)
    table = _routes(topology, chunk_hashes, target, registers, sketches.odds, all(sketches.trusted))
    return _each(table, sketches.trusted, factor or target)


def locate_now(topology: Topology, chunk_hashes: Sequence[str], factor: int | None = None) -> list[Route]:
    """The route of each chunk as from ``locate``, but by what Redis says at this moment."""
    target = configuration().replication_factor
    table, answer = _routes_now(topology, chunk_hashes, target)
    return _each(table, _trusted(topology, answer), factor or target)


def _each(table: Routes, trust: Sequence[bool], factor: int) -> list[Route]:
    """The route of each chunk."""
    members = table.members
    return [
        Route([members[column] for column in row], members, trust, registers, probabilities, factor)
        for row, registers, probabilities in zip(table.order, table.registers, table.probabilities, strict=True)
    ]


def _routes(
    topology: Topology,
    chunk_hashes: Sequence[str],
    target: int,
    registers: list[list[int]],
    odds: Odds,
    all_trusted: bool,
) -> Routes:
    """Weigh and order the nodes for each chunk.

    If as many registers are 1 as the chunk has replicas, and all others are 0, no other chunk shares these registers.
    Such registers tell where the chunk is, wherever placement would put it now, and most chunks have such registers at
    a load of 0.25. Apart from placement, this function is plain Python, which is faster than NumPy for rows of about
    five numbers.
    """
    members, offline = topology.members, [2.0 * (not member.online) for member in topology.members]
    probabilities, order = [], []
    ranked = placement.rank(chunk_hashes, topology.candidates).tolist() if members and chunk_hashes else registers
    for places, row in zip(ranked, registers, strict=True):
        if all_trusted and sum(row) == target and max(row) == 1:
            chances = [float(value) for value in row]
        else:
            chances = [0.0] * len(members)
            for place, node in enumerate(places):
                chances[node] = odds[place < target][row[node]][node]
        weights = [away - (1.0 if chance >= LIKELY else chance) for away, chance in zip(offline, chances, strict=True)]
        probabilities.append(chances)
        order.append(sorted(places, key=weights.__getitem__))  # Nodes of equal weight stay in the order of placement.
    return Routes(members, registers, probabilities, order)


def _unknown(topology: Topology, chunk_hashes: Sequence[str]) -> list[list[int]]:
    """The registers that are assumed for each chunk without Redis: all zero."""
    return [[0] * len(topology.members) for _ in chunk_hashes]


def _trusted(topology: Topology, answer: Lookup | Snapshot | None) -> list[bool]:
    """For each node, whether its sketch is trusted; False for all if ``answer`` is None: Redis does not answer."""
    headers = [answer.headers.get(member.node_id) if answer else None for member in topology.members]
    return [
        header is not None and answer is not None and trusted(header, member.sketch_epoch, answer.run_id)
        for member, header in zip(topology.members, headers, strict=True)
    ]


def _odds(topology: Topology, answer: Lookup | Snapshot | None, target: int) -> Odds:
    """The probability that a node holds a chunk, by whether placement prefers the node, by its register, and by node.

    Args:
        topology: the m nodes.
        answer: the answer of Redis, with the header of each node's sketch; None if Redis does not answer.
        target: the number of replicas of the chunk.
    """
    members, prior = topology.members, _prior(topology, target)
    sizes, loss, tau = _sketches(topology, answer)
    values = np.minimum(np.arange(256), tau).astype(np.uint8)
    shape, rows = (2, len(values), len(members)), (2 * len(values), len(members))
    weighed = candidates(
        np.broadcast_to(values[:, None], shape).reshape(rows),
        [member.stored_chunks for member in members],
        sizes,
        tau,
        np.broadcast_to(prior[:, None, None], shape).reshape(rows),
        loss,
    )
    odds: Odds = weighed.probabilities.reshape(shape).tolist()
    return odds


def _sketches(topology: Topology, answer: Lookup | Snapshot | None) -> tuple[list[int], list[float], int]:
    """For each node, N' of its sketch and the share of its chunks that the sketch may lack; and the largest TAU."""
    members = topology.members
    sizes, loss, tau = [topology.cluster.n_prime] * len(members), [1.0] * len(members), topology.cluster.tau
    for column, member in enumerate(members if answer else ()):
        if answer and (header := answer.headers.get(member.node_id)):
            tau = max(tau, header.tau)
            sizes[column] = header.n_prime
            loss[column] = 0.0 if trusted(header, member.sketch_epoch, answer.run_id) else STALE_LOSS
    return sizes, loss, tau


def _prior(topology: Topology, target: int) -> NDArray[np.float64]:
    """The prior probability that a node holds a chunk, before its register is read, shape ``[2]``.

    The first number is for a node that is not among the first ``target`` nodes in the order of placement; the second
    number is for a node that is among them.
    """
    others = max(len(topology.members) - target, 1)
    return np.array([min((1 - PREFERRED) * target / others, 1 - PREFERRED), PREFERRED])


@dataclass(frozen=True)
class _Seen:
    """The sketches as this process saw them, ready to order reads.

    Attributes:
        topology: the nodes that ``odds`` was made for.
        snapshot: the sketches; None if Redis did not answer.
        odds: the result of ``_odds``.
        trusted: the result of ``_trusted``.
    """

    topology: Topology
    snapshot: Snapshot | None
    odds: Odds
    trusted: list[bool]

    @classmethod
    def now(cls, topology: Topology, target: int) -> _Seen:
        """Read the sketches of all nodes from Redis."""
        snapshot = None
        try:
            snapshot = store_of(topology.cluster).snapshot([member.node_id for member in topology.members])
        except StoreUnavailable as error:
            log.warning("sketch.unavailable", error=str(error))
        return cls(topology, snapshot, _odds(topology, snapshot, target), _trusted(topology, snapshot))

    def is_of(self, topology: Topology) -> bool:
        """True if these are the sketches of ``topology``. The tallies in ``topology`` may be a second newer than the
        tallies with which this object was made.
        """
        return self.topology is topology or self.topology.sketches == topology.sketches

    def registers(self, chunk_hashes: Sequence[str]) -> list[list[int]]:
        """The registers: a row for each chunk, with a number for each node."""
        if self.snapshot is None:
            return _unknown(self.topology, chunk_hashes)
        return self.snapshot.registers([member.node_id for member in self.topology.members], chunk_hashes)


_recent: Recent[_Seen] = Recent(RECENT)


def preferences(topology: Topology, chunk_hashes: Sequence[str]) -> list[list[Member]]:
    """For each chunk, the nodes that accept replicas, in the order of placement."""
    members = topology.accepting
    if not chunk_hashes or not members:
        return [[] for _ in chunk_hashes]
    order = placement.rank(chunk_hashes, [member.candidate for member in members])
    return [[members[i] for i in row] for row in order]
