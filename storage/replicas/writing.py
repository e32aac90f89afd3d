"""Bring chunks to their targets: first count the new copies, then write them, to all nodes at the same time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

import structlog

from storage import phases
from storage.cluster import generations
from storage.cluster.topology import Member, Topology
from storage.exceptions import VolumeError, VolumeFull
from storage.models import Job, Node
from storage.replicas.finding import ask, verified
from storage.replicas.waves import Waves
from storage.tracking import batches, counting, routing

log = structlog.get_logger(__name__)

RUN_CHUNKS = 32
RUN_BYTES = 4 << 20
"""One write to a node has at most this many chunks and bytes, so that a slow disk keeps its lane's time limit."""


@dataclass(frozen=True)
class Stored:
    """Where the chunks of a batch are now.

    Attributes:
        holders: chunk hash → nodes with a good and durable copy.
        written: the number of copies made.
        suspects: the hashes of the chunks of which a bad copy was found.
        lack: what chunks below their targets lack, nodes or space; None if nothing was lacking.
    """

    holders: dict[str, list[Member]]
    written: int
    suspects: set[str]
    lack: Job.Lack | None

    def counted(self, chunk_hash: str) -> int:
        """The number of copies of a chunk on nodes whose copies count towards a target."""
        return sum(member.counts for member in self.holders[chunk_hash])


def store(
    topology: Topology,
    data: Mapping[str, bytes],
    targets: Mapping[str, int],
    *,
    operation: str,
    preferences: Mapping[str, Sequence[Member]] | None = None,
) -> Stored:
    """Bring every chunk to its target on distinct nodes, as far as there are nodes with room.

    The caller has committed references to the chunks (pins, manifests) before the call. The volumes are asked which
    copies exist already, never the sketches, and a copy that is found counts only after it was read back.

    Args:
        topology: the nodes.
        data: chunk hash → bytes.
        targets: chunk hash → replicas wanted.
        operation: the prefix of the phases that are entered: ``<operation>.locate``, ``.count``, ``.write``.
        preferences: chunk hash → nodes that accept replicas, best first; by default all, in the order of placement.
    """
    phases.enter(f"{operation}.locate")
    answers = ask(topology, {chunk_hash: len(chunk) for chunk_hash, chunk in data.items()})
    holders, suspects = verified(answers.holders)
    if preferences is None:
        preferences = dict(zip(data, routing.preferences(topology, list(data)), strict=True))
    generations.before_writing(topology)
    with batches.batch_in_flight():
        # A drain first changes the state of its node, and then waits for all batches in flight. A batch that begins
        # after the change reads the new state here, and does not write to the node.
        accepting = Node.accepting_ids()
        nodes = {h: [member for member in preferences[h] if member.node_id in accepting] for h in data}
        waves = Waves(targets, holders, nodes)
        writer = _Writer(topology, data)
        try:
            writer.run(waves, operation)
        finally:
            writer.ended.set()
    if suspects:
        log.warning("replica.suspect", chunks=sorted(suspects))
    return Stored(waves.holders, sum(len(hashes) for _, hashes in waves.written), suspects, waves.lack)


class _Writer:
    """Counts and writes wave after wave, to all nodes at the same time."""

    def __init__(self, topology: Topology, data: Mapping[str, bytes]) -> None:
        self.topology = topology
        self.data = data
        self.ended = Event()

    def run(self, waves: Waves, operation: str) -> None:
        """Write until every chunk has its target, or no node is left to try."""
        ensure = _by_node(waves.holders)
        while (wave := waves.next()) or ensure:
            phases.enter(f"{operation}.count")
            counting.count(self.topology, _by_node(wave), ensure)
            ensure = {}
            phases.enter(f"{operation}.write")
            self._write(wave, waves)
        tallies: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for member, hashes in waves.written:
            tallies[member.node_id][0] += len(hashes)
            tallies[member.node_id][1] += sum(len(self.data[chunk_hash]) for chunk_hash in hashes)
        Node.tally({node_id: (chunks, size) for node_id, (chunks, size) in tallies.items()})

    def _write(self, wave: Mapping[str, Sequence[Member]], waves: Waves) -> None:
        """Write one wave, and record in ``waves`` what succeeded and which nodes failed."""
        calls = []
        for member, hashes in self._runs(wave):
            first = [chunk_hash for chunk_hash in hashes if waves.readers_ask.get(chunk_hash) is member]
            try:
                calls.append((member, hashes, member.lane.submit(self._write_run, member, hashes, first)))
            except VolumeError:
                waves.failed(member)
        for member, hashes, future in calls:
            try:
                member.lane.result(future)
            except VolumeError as error:
                # Nobody knows whether the copies were written, so they stay counted (RACES 25).
                waves.failed(member, full=isinstance(error, VolumeFull))
                log.warning("replica.unwritten", chunks=hashes, node=member.node_id, error=str(error))
            else:
                waves.wrote(member, hashes)

    def _runs(self, wave: Mapping[str, Sequence[Member]]) -> Iterator[tuple[Member, list[str]]]:
        """Yield (node, hashes) for each write to a node. The chunks of one write become durable together."""
        chunks: dict[Member, list[str]] = defaultdict(list)
        for chunk_hash, members in wave.items():
            for member in members:
                chunks[member].append(chunk_hash)
        for member, hashes in chunks.items():
            yield from ((member, portion) for portion in _portions(hashes, self.data))

    def _write_run(self, member: Member, hashes: Sequence[str], keep_cached: Sequence[str]) -> None:
        """Write in the node's lane. On a disk that hangs, the write may end long after the batch has ended."""
        member.lane.volume.write({chunk_hash: self.data[chunk_hash] for chunk_hash in hashes}, keep_cached=keep_cached)
        if self.ended.is_set():
            # A rebuild may have listed the node and swapped its sketch since the batch ended, so the copies are counted
            # once more. The copies are counted even if the register is above zero: the register may count another
            # chunk, which may be removed later.
            counting.count(self.topology, {member.node_id: hashes})


def _portions(hashes: Sequence[str], data: Mapping[str, bytes]) -> Iterator[list[str]]:
    run: list[str] = []
    size = 0
    for chunk_hash in hashes:
        size += len(data[chunk_hash])
        if run and (len(run) == RUN_CHUNKS or size > RUN_BYTES):
            yield run
            run, size = [], len(data[chunk_hash])
        run.append(chunk_hash)
    if run:
        yield run


def _by_node(chunks: Mapping[str, Sequence[Member]]) -> dict[str, list[str]]:
    nodes: dict[str, list[str]] = defaultdict(list)
    for chunk_hash, members in chunks.items():
        for member in members:
            nodes[member.node_id].append(chunk_hash)
    return dict(nodes)
