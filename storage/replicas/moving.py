"""Bring chunks to their targets: first plan the moves (pure), then carry them out. Most maintenance jobs use
``moving``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog
from django.db.models import Q

from storage import phases
from storage.cluster import placement
from storage.cluster.topology import Member, Topology
from storage.exceptions import ContentGone, ContentUnavailable
from storage.models import Content, Job
from storage.replicas.reading import read
from storage.replicas.removing import remove_replicas
from storage.replicas.writing import store
from storage.tracking import routing
from storage.tracking.routing import Route

log = structlog.get_logger(__name__)

BATCH_CHUNKS = 32
RANKED_CHUNKS = 4096
"""This many chunks are ranked at a time: all chunks of a range at once would take much memory in a large cluster."""


@dataclass(frozen=True)
class Move:
    """The copies of one chunk to make and to remove.

    Attributes:
        chunk_hash: SHA-256 in hex.
        target: the number of replicas wanted on nodes whose copies count.
        add: nodes to try for new copies, best first; empty if there are enough copies.
        drop: nodes to remove a copy from, because it is surplus or the node is being drained.
    """

    chunk_hash: str
    target: int
    add: list[Member]
    drop: list[Member]


@dataclass(frozen=True)
class Moved:
    """The result of carrying out moves.

    Attributes:
        added: the number of new copies.
        removed: the number of removed copies.
        unreadable: the number of chunks without a good copy on a node that answers.
    """

    added: int = 0
    removed: int = 0
    unreadable: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(self.added + other.added, self.removed + other.removed, self.unreadable + other.unreadable)


def plan(topology: Topology, holders: Mapping[str, Sequence[Member]], targets: Mapping[str, int]) -> list[Move]:
    """Plan the moves of every chunk. A new copy goes to the node that placement prefers most, and a surplus copy is
    dropped from the node that placement prefers least.

    Copies that are not surplus stay, even on nodes where placement would not put them now.

    Args:
        topology: the nodes.
        holders: chunk hash → nodes that have a copy.
        targets: chunk hash → replicas wanted.
    """
    moves = []
    for chunk_hash, order in orders(topology, holders):
        chunk_holders, target = holders[chunk_hash], targets[chunk_hash]
        counting = [member for member in order if member.counts and member in chunk_holders]
        add = [member for member in order if member not in chunk_holders] if len(counting) < target else []
        drop = _least_wanted(counting, target)
        drop += [member for member in chunk_holders if member.online and member.state == "draining"]
        if add or drop:
            moves.append(Move(chunk_hash, target, add, drop))
    return moves


def orders(topology: Topology, holders: Mapping[str, Sequence[Member]]) -> Iterator[tuple[str, list[Member]]]:
    """For each chunk, the nodes where its copies may lie, in the order of placement.

    Copies may lie on the nodes that accept copies, and on full or read-only nodes that have a copy of the chunk. A full
    node keeps the copies that it has, and gets no new ones.

    Args:
        topology: the nodes.
        holders: chunk hash → nodes that have a copy.
    """
    keeping = [member for member in topology.members if member.counts and not member.accepts]
    groups: dict[tuple[Member, ...], list[str]] = defaultdict(list)
    for chunk_hash, chunk_holders in holders.items():
        groups[tuple(member for member in keeping if member in chunk_holders)].append(chunk_hash)
    for keepers, chunk_hashes in groups.items():
        members = (*topology.accepting, *keepers)
        candidates = [member.candidate for member in members]
        for start in range(0, len(chunk_hashes), RANKED_CHUNKS):
            block = chunk_hashes[start : start + RANKED_CHUNKS]
            ranked = placement.rank(block, candidates).tolist() if members else [[]] * len(block)
            yield from ((h, [members[i] for i in row]) for h, row in zip(block, ranked, strict=True))


def _least_wanted(counting: Sequence[Member], target: int) -> list[Member]:
    """Choose the nodes whose copies are surplus, the least wanted first. The copies that stay are spread over zones.

    Args:
        counting: the holders whose copies count, in the order of placement.
        target: replicas wanted.
    """
    if len(counting) <= target:
        return []
    stay = placement.spread([member.candidate for member in counting], [], target)
    node_ids = {candidate.node_id for candidate in stay}
    return [member for member in reversed(counting) if member.node_id not in node_ids]


def batches(moves: Sequence[Move]) -> Iterator[Sequence[Move]]:
    """Cut the moves into batches: the chunks of one batch are in memory together."""
    for start in range(0, len(moves), BATCH_CHUNKS):
        yield moves[start : start + BATCH_CHUNKS]


def carry_out(topology: Topology, moves: Sequence[Move], *, operation: str) -> Moved:
    """Make the new copies, then remove the old ones. A copy is only removed if the chunk keeps its target without this
    copy.

    Args:
        topology: the nodes.
        moves: at most one batch of moves, because their chunks are held in memory. No chunk occurs in two moves.
        operation: the prefix of the phases that are entered: ``<operation>.locate``, ``.count``, ``.write``, ``.trim``.
    """
    moved = _add(topology, [move for move in moves if move.add], operation)
    removed = _drop(topology, moves, operation) if any(move.drop for move in moves) else 0
    return moved + Moved(removed=removed)


def outdate_health(chunk_hashes: Sequence[str], *, of: Q | None = None) -> None:
    """Mark the summaries of all contents with these chunks as no longer exact, and queue a job that makes them exact.

    Args:
        chunk_hashes: the chunks.
        of: a condition that restricts the contents, for example to those whose summaries contradict a finding.
    """
    if Content.objects.filter(of or Q(), entries__chunk__hash__in=list(chunk_hashes)).update(health_epoch=-1):
        Job.request(Job.Kind.REFRESH_HEALTH, "all")


def _add(topology: Topology, moves: Sequence[Move], operation: str) -> Moved:
    if not moves:
        return Moved()
    data, unreadable = _read(topology, moves)
    stored = store(
        topology,
        data,
        {move.chunk_hash: move.target for move in moves},
        operation=operation,
        preferences={move.chunk_hash: move.add for move in moves},
    )
    return Moved(stored.written, 0, unreadable)


def _read(topology: Topology, moves: Sequence[Move]) -> tuple[dict[str, bytes], int]:
    routes = routing.locate(topology, [move.chunk_hash for move in moves])
    data = {}
    for move, route in zip(moves, routes, strict=True):
        try:
            # The read below gets the order only, without probabilities, and so reports no missing copies: the caller
            # has asked all nodes, and knows which copies are missing.
            data[move.chunk_hash] = read(topology, move.chunk_hash, Route(route.order))
        except (ContentGone, ContentUnavailable) as error:
            # A chunk that cannot be read must not keep other chunks from being mended.
            log.error("chunk.unreadable", chunk=move.chunk_hash, error=str(error))
    return data, len(moves) - len(data)


def _drop(topology: Topology, moves: Sequence[Move], operation: str) -> int:
    phases.enter(f"{operation}.trim")
    # The copies are removed one by one, so that each call is short: it reads the other copies of its chunk back, and an
    # upload of the chunk waits meanwhile.
    return sum(remove_replicas(topology, {move.chunk_hash: [member]}) for move in moves for member in move.drop)
