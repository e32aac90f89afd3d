"""A model of a cluster without volumes and database: the plans of the services move copies between sets of node ids."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import combinations
from typing import cast

import numpy as np
from numpy.typing import NDArray

from sketches.estimators.null import ExpectedOverlap, fitted_overlap, simulated_overlap
from sketches.estimators.overlap import pairwise_overlaps
from sketches.lcrs import LCRS
from storage.cluster import placement
from storage.cluster.topology import Member, Topology
from storage.models import Cluster
from storage.replicas import moving
from storage.replicas.census import Entry
from storage.services import rebalance_all
from storage.volumes import Identity, Lane

SIZE = 1000  # The size of every chunk in bytes.
JOINED = datetime(2026, 1, 1, tzinfo=UTC)


def member(number: int, capacity: float = 1.0, zone: str = "") -> Member:
    """Make a node that has no volume."""
    node_id = f"node_{number:03d}"
    identity, lane = Identity("cluster", node_id, node_id), cast(Lane, None)
    return Member(node_id, "active", True, True, zone, 1.0, capacity, 0, 0, 0, 0, JOINED, identity, lane)


class PaperCluster:
    """Nodes, and the copies that they hold after the plans of the services were carried out.

    Attributes:
        members: node id → node.
        holders: chunk hash → ids of the nodes with a copy.
        targets: chunk hash → the number of replicas that the chunk should have.
    """

    def __init__(self, members: Iterable[Member]) -> None:
        self.members = {each.node_id: each for each in members}
        self.holders: dict[str, set[str]] = {}
        self.targets: dict[str, int] = {}

    @property
    def topology(self) -> Topology:
        return Topology(Cluster(), tuple(self.members.values()))

    def change(self, node_id: str, **changes: object) -> None:
        self.members[node_id] = dataclasses.replace(self.members[node_id], **changes)  # type: ignore[arg-type]

    def entries(self) -> dict[str, Entry]:
        """Return the entries that a census would find: the copies on nodes that answer."""
        online = {node_id: each for node_id, each in self.members.items() if each.online}
        return {
            h: Entry(SIZE, self.targets[h], [online[node_id] for node_id in sorted(held & online.keys())])
            for h, held in self.holders.items()
        }

    def upload(self, count: int, target: int = 3) -> None:
        """Store ``count`` new chunks."""
        new = [sha256(f"{len(self.holders) + i}".encode()).hexdigest() for i in range(count)]
        self.holders |= {chunk_hash: set() for chunk_hash in new}
        self.targets |= dict.fromkeys(new, target)
        self.repair()

    def repair(self) -> int:
        """Add copies of short chunks, and trim surplus copies.

        A copy on a draining node is removed when there are enough copies on other nodes. Returns the number of chunks
        with a move.
        """
        entries = self.entries()
        plan = moving.plan(self.topology, {h: entry.holders for h, entry in entries.items()}, self.targets)
        for move in plan:
            held = [each.candidate for each in entries[move.chunk_hash].counting]
            short = entries[move.chunk_hash].short
            self._carry_out(move, placement.spread([each.candidate for each in move.add], held, short))
        return len(plan)

    def rebalance(self) -> int:
        """Move all misplaced copies. Return how many copies moved."""
        plan = rebalance_all.moves(self.topology, self.entries())
        for move in plan:
            self._carry_out(move, [each.candidate for each in move.add])
        return sum(len(move.add) for move in plan)

    def _carry_out(self, move: moving.Move, added: Sequence[placement.Candidate]) -> None:
        held = self.holders[move.chunk_hash]
        held |= {candidate.node_id for candidate in added}
        for each in move.drop:
            counting = sum(self.members[node_id].counts for node_id in held - {each.node_id})
            if counting >= self.targets[move.chunk_hash]:  # `remove_replicas` of the service follows this rule too.
                held.discard(each.node_id)

    def drain(self, node_id: str) -> None:
        self.change(node_id, state="draining")
        self.repair()
        assert not any(node_id in held for held in self.holders.values())
        del self.members[node_id]

    def misplaced(self) -> int:
        return sum(len(move.add) for move in rebalance_all.moves(self.topology, self.entries()))

    def counting(self) -> list[str]:
        return [node_id for node_id, each in self.members.items() if each.counts]

    def worst_set(self, target: int = 3) -> int:
        """Return the largest number of chunks with this target whose copies all lie on the same ``target`` nodes."""
        sets = Counter(
            together
            for h, held in self.holders.items()
            if self.targets[h] == target
            for together in combinations(sorted(held & set(self.counting())), target)
        )
        return max(sets.values(), default=0)

    def first_is_right(self) -> float:
        """Return the share of the chunks that have a copy on the first node of their placement."""
        hashes, nodes = list(self.holders), [each for each in self.members.values() if each.counts]
        first = placement.rank(hashes, [each.candidate for each in nodes])[:, 0]
        return float(np.mean([nodes[i].node_id in self.holders[h] for h, i in zip(hashes, first, strict=True)]))

    def largest_z(self) -> float:
        """Return the largest absolute z score of a pair of nodes, as a survey of their sketches would find it."""
        sketches = {node_id: LCRS(1 << 16, 255, seed=1) for node_id in self.counting()}
        for node_id, sketch in sketches.items():
            sketch.add([h for h, held in self.holders.items() if node_id in held])
        registers = np.stack([sketch.registers for sketch in sketches.values()])
        return float(np.abs(self._expected(registers).scores(pairwise_overlaps(registers))).max())

    def _expected(self, registers: NDArray[np.uint8]) -> ExpectedOverlap:
        replicas = dict(Counter(self.targets.values()))
        nodes = [self.members[node_id].candidate for node_id in self.counting()]
        if not any(node.zone for node in nodes):
            return fitted_overlap(replicas, registers.sum(axis=1, dtype=np.int64))
        drawn = np.random.default_rng(0)

        def rank(chunks: int) -> NDArray[np.intp]:
            return placement.rank([drawn.bytes(32).hex() for _ in range(chunks)], nodes)

        return simulated_overlap(replicas, rank, 1 << 14)

    def share_of(self, node_id: str) -> float:
        """Return the node's number of copies, divided by the number it would have if copies were shared by capacity."""
        copies = sum(len(held & set(self.counting())) for held in self.holders.values())
        capacities = {each: self.members[each].capacity for each in self.counting()}
        holds = sum(node_id in held for held in self.holders.values())
        return holds / (copies * capacities[node_id] / sum(capacities.values()))

    def gather(self, newest: int) -> None:
        """Put the copies of every fourth chunk on the ``newest`` newest nodes.

        A rebalance that only makes nodes equally full gathers copies on the newest nodes like this (ADR 19).
        """
        nodes = self.counting()[-newest:]
        for i, (h, held) in enumerate(self.holders.items()):
            if i % 4 == 0:
                held.clear()
                held.update(nodes[: self.targets[h]])
