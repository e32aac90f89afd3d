"""Decide which nodes get which chunks next, until every chunk has its target. The module asks no volume and writes to
none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storage.cluster import placement
from storage.cluster.topology import Member
from storage.models import Job


class Waves:
    """The copies of a batch: where they are, and which nodes to try next.

    In each wave a chunk goes to as many nodes as it lacks copies. A chunk whose write fails on one node goes to another
    node in the next wave. A node that has failed once gets no more chunks of this batch.

    Attributes:
        holders: chunk hash → nodes with a good and durable copy.
        written: (node, hashes of the chunks that were written to it together) for each successful write.
        readers_ask: chunk hash → the node that readers will ask first, for chunks that had no copy before.
        lack: what chunks below their targets lack, nodes or space; None if nothing. ``lack`` keeps its value even if
            the next wave brings these chunks to their targets.
    """

    def __init__(
        self,
        targets: Mapping[str, int],
        holders: Mapping[str, Sequence[Member]],
        nodes: Mapping[str, Sequence[Member]],
    ) -> None:
        """
        Args:
            targets: chunk hash → replicas wanted.
            holders: chunk hash → nodes that have a good copy already.
            nodes: chunk hash → nodes that accept replicas, best first.
        """
        self.holders = {chunk_hash: list(members) for chunk_hash, members in holders.items()}
        self.written: list[tuple[Member, Sequence[str]]] = []
        self.readers_ask: dict[str, Member] = {}
        self.lack: Job.Lack | None = None
        self._targets = targets
        self._untried = {h: [member for member in nodes[h] if member not in self.holders[h]] for h in targets}
        self._failed: set[str] = set()

    def next(self) -> dict[str, list[Member]]:
        """Choose the next wave: chunk hash → nodes to write to. A chunk is absent if it has its target, or no node is
        left for it.
        """
        wave = {}
        for chunk_hash, target in self._targets.items():
            holders = self.holders[chunk_hash]
            short = target - sum(member.counts for member in holders)
            if short <= 0:
                continue
            untried = [member for member in self._untried[chunk_hash] if member.node_id not in self._failed]
            chosen = _spread(untried, holders, short)
            if len(chosen) < short:
                self.lack = self.lack or Job.Lack.NODES
            if chosen:
                if not holders:
                    # Readers ask equally likely nodes in the order of placement, so they ask the first chosen node
                    # first.
                    self.readers_ask[chunk_hash] = chosen[0]
                self._untried[chunk_hash] = [member for member in untried if member not in chosen]
                wave[chunk_hash] = chosen
        return wave

    def wrote(self, member: Member, hashes: Sequence[str]) -> None:
        """Record that the node has good and durable copies of these chunks now."""
        self.written.append((member, hashes))
        for chunk_hash in hashes:
            self.holders[chunk_hash].append(member)

    def failed(self, member: Member, *, full: bool = False) -> None:
        """Record that the node has failed, because it was full or for another reason. The node is not tried again."""
        self._failed.add(member.node_id)
        if full:
            self.lack = Job.Lack.SPACE


def _spread(order: Sequence[Member], holders: Sequence[Member], count: int) -> list[Member]:
    if not any(member.zone for member in (*order, *holders)):
        return list(order[:count])
    by_id = {member.node_id: member for member in order}
    chosen = placement.spread(
        [member.candidate for member in order],
        [member.candidate for member in holders],
        count,
    )
    return [by_id[candidate.node_id] for candidate in chosen]
