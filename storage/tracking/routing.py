"""Which nodes probably hold a chunk: where readers ask first.

Redis is a hint: whatever fails here orders reads worse and makes statistics say so, and harms nothing else.
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

PREFERRED = 0.9  # So many replicas, of all, are taken to lie where placement would put them now.
LIKELY = 0.5  # from here on, placement decides who is asked first: readers take turns, and ask where bytes are cached
STALE_LOSS = 0.5  # share of its chunks that a sketch which is not trusted is taken to lack
CERTAIN = 0.95  # A missing copy is reported if its node held it with this probability: few reports are for nothing.
RECENT = 1.0  # seconds for which reads go by the sketches that this process has seen
RECENT_BYTES = 4 << 20  # of all nodes' sketches; larger ones are not fetched each second, but asked for each chunk

Odds: TypeAlias = list[list[list[float]]]  # by whether placement prefers a node, its register, the node


@dataclass(frozen=True)
class Routes:
    """Where to look for some chunks; each list has a row for each chunk.

    Attributes:
        members: all nodes.
        registers: of each node; 0 where there is no sketch.
        probabilities: of each node, that it holds the chunk.
        order: the nodes, by their place among the members: online ones first; of them the likely ones in the order of
            placement, and then the others, the most probable first.
    """

    members: tuple[Member, ...]
    registers: list[list[int]]
    probabilities: list[list[float]]
    order: list[list[int]]


def routes(topology: Topology, chunk_hashes: Sequence[str], target: int, mean_replicas: float) -> Routes:
    """Weigh what the registers of all nodes say, and where placement would put a chunk of ``target`` replicas now.

    The order is that of downloads. A zero register of a trusted sketch makes a node improbable, not impossible: it only
    orders (RACES 14), and every node is in every order.

    Args:
        topology: the nodes.
        chunk_hashes: the chunks.
        target: replicas that each of them should have, at least 1.
        mean_replicas: of all chunks.
    """
    found, said = _routes_now(topology, chunk_hashes, target)
    if not found.members or not chunk_hashes:
        return found
    sizes, loss, tau = _sketches(topology, said)
    places = np.argsort(placement.rank(chunk_hashes, topology.candidates), axis=1)
    together = holders(
        np.array(found.registers, np.uint8),
        target,
        [member.stored_chunks for member in found.members],
        max(mean_replicas, 1.0),
        sizes,
        tau,
        _prior(topology, target)[(places < target).astype(np.intp)],
        loss,
    )
    return replace(found, probabilities=together.probabilities.tolist())


def _routes_now(topology: Topology, chunk_hashes: Sequence[str], target: int) -> tuple[Routes, Lookup | None]:
    """The routes by what Redis says at this moment, and that."""
    node_ids = [member.node_id for member in topology.members]
    try:
        said: Lookup | None = store_of(topology.cluster).lookup(node_ids, chunk_hashes)
    except StoreUnavailable as error:
        log.warning("sketch.unavailable", error=str(error))
        said = None
    registers = said.counts.T.tolist() if said else _unknown(topology, chunk_hashes)
    trust = _trusted(topology, said)
    return _routes(topology, chunk_hashes, target, registers, _odds(topology, said, target), all(trust)), said


class Route(NamedTuple):
    """Where to look for one chunk.

    What is not needed unless a copy is missing is worked out then: most chunks are where they are looked for first.

    Attributes:
        order: all nodes, in the order in which to ask them.
        members: all nodes, in the order in which the following lists speak of them.
        trusted: of each node, whether its sketch is trusted.
        registers: of each node, the register that the chunk falls into.
        probabilities: of each node, that it holds the chunk.
        target: replicas that the chunk is taken to have.
    """

    order: Sequence[Member]
    members: Sequence[Member] = ()
    trusted: Sequence[bool] = ()
    registers: Sequence[int] = ()
    probabilities: Sequence[float] = ()
    target: int = 0

    def is_certain(self, member: Member) -> bool:
        """Whether a trusted sketch is nearly certain that the node holds the chunk.

        The probability alone may rest on where placement would put the chunk now, which after a growth is not where the
        chunk lies. So the registers must leave no room for another explanation either: the copies that they count, and
        one for each node without a trusted sketch, are no more than the chunk's own.
        """
        if member not in self.members:
            return False
        column = self.members.index(member)
        if not self.trusted[column] or self.probabilities[column] < CERTAIN:
            return False
        return 0 < sum(self.registers) <= self.target - self.trusted.count(False)


def locate(topology: Topology, chunk_hashes: Sequence[str], factor: int | None = None) -> list[Route]:
    """For each chunk, where to look for it, by what the sketches said up to a second ago.

    Args:
        topology: the nodes.
        chunk_hashes: the chunks.
        factor: replicas that these chunks should have, by which to tell whether a node is certain to hold one; by
            default the usual number, by which they are ordered in any case.
    """
    target = configuration().replication_factor
    if len(topology.members) * sketch_size(topology.cluster.n_prime) > RECENT_BYTES:
        return locate_now(topology, chunk_hashes, factor)
    seen = _recent.see(lambda: _Seen.now(topology, target), fits=lambda seen: seen.is_of(topology))
    registers = seen.registers(chunk_hashes)
    found = _routes(topology, chunk_hashes, target, registers, seen.odds, all(seen.trusted))
    return _each(found, seen.trusted, factor or target)


def locate_now(topology: Topology, chunk_hashes: Sequence[str], factor: int | None = None) -> list[Route]:
    """As from ``locate``, by what Redis says at this moment."""
    target = configuration().replication_factor
    found, said = _routes_now(topology, chunk_hashes, target)
    return _each(found, _trusted(topology, said), factor or target)


def _each(found: Routes, trust: Sequence[bool], factor: int) -> list[Route]:
    """The route of each chunk."""
    members = found.members
    return [
        Route([members[column] for column in row], members, trust, registers, probabilities, factor)
        for row, registers, probabilities in zip(found.order, found.registers, found.probabilities, strict=True)
    ]


def _routes(
    topology: Topology,
    chunk_hashes: Sequence[str],
    target: int,
    registers: list[list[int]],
    odds: Odds,
    all_trusted: bool,
) -> Routes:
    """In plain Python but for the placement: NumPy takes longer to begin with five numbers than this to end.

    Where exactly as many registers are 1 as the chunk has replicas, and the others 0, nothing else shares them: they
    tell where it is, wherever placement would put it now. At a load of a quarter that is so for most chunks.
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
        order.append(sorted(places, key=weights.__getitem__))  # stable: of equals, placement's first comes first
    return Routes(members, registers, probabilities, order)


def _unknown(topology: Topology, chunk_hashes: Sequence[str]) -> list[list[int]]:
    """What is known of chunks without Redis."""
    return [[0] * len(topology.members) for _ in chunk_hashes]


def _trusted(topology: Topology, said: Lookup | Snapshot | None) -> list[bool]:
    """Of each node, whether its sketch is trusted; none is if Redis does not answer."""
    headers = [said.headers.get(member.node_id) if said else None for member in topology.members]
    return [
        header is not None and said is not None and trusted(header, member.sketch_epoch, said.run_id)
        for member, header in zip(topology.members, headers, strict=True)
    ]


def _odds(topology: Topology, said: Lookup | Snapshot | None, target: int) -> Odds:
    """The probability that a node holds a chunk: by whether placement prefers it, register, node.

    Args:
        topology: the nodes, m of them.
        said: the headers of their sketches; None if Redis does not answer.
        target: replicas of the chunk.
    """
    members, prior = topology.members, _prior(topology, target)
    sizes, loss, tau = _sketches(topology, said)
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


def _sketches(topology: Topology, said: Lookup | Snapshot | None) -> tuple[list[int], list[float], int]:
    """Of each node, N' and the share of its chunks that the sketch may lack; and the largest TAU."""
    members = topology.members
    sizes, loss, tau = [topology.cluster.n_prime] * len(members), [1.0] * len(members), topology.cluster.tau
    for column, member in enumerate(members if said else ()):
        if said and (header := said.headers.get(member.node_id)):
            tau = max(tau, header.tau)
            sizes[column] = header.n_prime
            loss[column] = 0.0 if trusted(header, member.sketch_epoch, said.run_id) else STALE_LOSS
    return sizes, loss, tau


def _prior(topology: Topology, target: int) -> NDArray[np.float64]:
    """Before a look at the registers: the probability that a node holds a chunk.

    The first is that of a node beyond the first ``target`` of placement's order, the second that of one among them.
    """
    others = max(len(topology.members) - target, 1)
    return np.array([min((1 - PREFERRED) * target / others, 1 - PREFERRED), PREFERRED])


@dataclass(frozen=True)
class _Seen:
    """The sketches as this process saw them, ready to order reads.

    Attributes:
        topology: the nodes that ``odds`` are of.
        snapshot: None if Redis did not answer.
        odds: as from ``_odds``.
        trusted: as from ``_trusted``.
    """

    topology: Topology
    snapshot: Snapshot | None
    odds: Odds
    trusted: list[bool]

    @classmethod
    def now(cls, topology: Topology, target: int) -> _Seen:
        """Ask Redis for all of them."""
        snapshot = None
        try:
            snapshot = store_of(topology.cluster).snapshot([member.node_id for member in topology.members])
        except StoreUnavailable as error:
            log.warning("sketch.unavailable", error=str(error))
        return cls(topology, snapshot, _odds(topology, snapshot, target), _trusted(topology, snapshot))

    def is_of(self, topology: Topology) -> bool:
        """Whether the nodes are these; a tally of what they hold that is a second older makes no difference."""
        return self.topology is topology or self.topology.sketches == topology.sketches

    def registers(self, chunk_hashes: Sequence[str]) -> list[list[int]]:
        """A row for each chunk, of each node."""
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
