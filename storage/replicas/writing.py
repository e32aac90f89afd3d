"""Bringing chunks up to their targets: count, then write, side by side on all nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

import structlog

from storage import phases
from storage.cluster import generations, placement
from storage.cluster.topology import Member, Topology
from storage.exceptions import VolumeError, VolumeFull
from storage.models import Job, Node
from storage.replicas.finding import ask, verified
from storage.tracking import batches, counting, routing

log = structlog.get_logger(__name__)

RUN_CHUNKS = 32
RUN_BYTES = 4 << 20  # few enough for a slow disk to take within its lane's time limit


@dataclass(frozen=True)
class Stored:
    """Where the chunks of a batch are now.

    Attributes:
        holders: chunk hash → nodes with a good and durable copy.
        written: copies made.
        suspects: chunks of which a bad copy was met on the way.
        lack: what there was too little of to reach every target, nodes or space; None if nothing was.
    """

    holders: dict[str, list[Member]]
    written: int
    suspects: set[str]
    lack: Job.Lack | None

    def counted(self, chunk_hash: str) -> int:
        """Copies on nodes whose copies count towards a target."""
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

    The caller holds references to the chunks (pins, manifests) that it committed before. Whether a chunk is already
    there is asked of the volumes, never of the sketches, and a copy found counts only after it was read back.

    Args:
        topology: the nodes.
        data: chunk hash → bytes.
        targets: chunk hash → replicas wanted.
        operation: whose phases are entered: ``<operation>.locate``, ``.count``, ``.write``.
        preferences: chunk hash → nodes that accept replicas, best first; by default all, in the order of placement.
    """
    phases.enter(f"{operation}.locate")
    found = ask(topology, {chunk_hash: len(chunk) for chunk_hash, chunk in data.items()})
    holders, suspects = verified(found.holders)
    if preferences is None:
        preferences = dict(zip(data, routing.preferences(topology, list(data)), strict=True))
    generations.before_writing(topology)
    with batches.batch_in_flight():
        # Read within the lease: who begins to drain a node, and then waits for batches, knows that no later one writes.
        accepting = Node.accepting_ids()
        writer = _Writer(topology, data, targets, preferences, accepting, holders, operation)
        try:
            writer.run()
        finally:
            writer.ended.set()
    if suspects:
        log.warning("replica.suspect", chunks=sorted(suspects))
    return Stored(holders, writer.written, suspects, writer.lack)


class _Writer:
    """Writes in waves: what fails on one node goes to the next in the following wave."""

    def __init__(
        self,
        topology: Topology,
        data: Mapping[str, bytes],
        targets: Mapping[str, int],
        preferences: Mapping[str, Sequence[Member]],
        accepting: set[str],
        holders: dict[str, list[Member]],
        operation: str,
    ) -> None:
        self.topology = topology
        self.data = data
        self.targets = targets
        self.holders = holders
        self.operation = operation
        self.untried = {h: [m for m in preferences[h] if m not in holders[h] and m.node_id in accepting] for h in data}
        self.written = 0
        self.shunned: set[str] = set()
        self.lack: Job.Lack | None = None
        self.ended = Event()
        self.asked_first: dict[str, Member] = {}  # by readers, as routing orders likely nodes as placement does
        self.found = {h: list(members) for h, members in holders.items() if members}

    def run(self) -> None:
        tallies: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        ensure = _by_node(self.found)
        while True:
            wave = self._wave()
            if not wave and not ensure:
                break
            phases.enter(f"{self.operation}.count")
            counting.count(self.topology, _by_node(wave), ensure)
            ensure = {}
            phases.enter(f"{self.operation}.write")
            self._write(wave, tallies)
        Node.tally({node_id: (chunks, size) for node_id, (chunks, size) in tallies.items()})

    def _wave(self) -> dict[str, list[Member]]:
        """The next nodes to try, by chunk, for chunks below their target."""
        wave = {}
        for chunk_hash in self.data:
            held = self.holders[chunk_hash]
            short = self.targets[chunk_hash] - sum(member.counts for member in held)
            if short <= 0:
                continue
            untried = [member for member in self.untried[chunk_hash] if member.node_id not in self.shunned]
            chosen = _spread(untried, held, short)
            if len(chosen) < short:
                self.lack = self.lack or Job.Lack.NODES
            if chosen:
                if not held:
                    self.asked_first[chunk_hash] = chosen[0]
                self.untried[chunk_hash] = [member for member in untried if member not in chosen]
                wave[chunk_hash] = chosen
        return wave

    def _write(self, wave: Mapping[str, Sequence[Member]], tallies: dict[str, list[int]]) -> None:
        started = []
        for member, run in self._runs(wave):
            try:
                started.append((member, run, member.lane.submit(self._write_run, member, run)))
            except VolumeError:
                self.shunned.add(member.node_id)
        for member, run, future in started:
            try:
                member.lane.result(future)
            except VolumeError as error:
                # Whether they were written is not known: the counts stay (RACES 25).
                self.shunned.add(member.node_id)
                if isinstance(error, VolumeFull):
                    self.lack = Job.Lack.SPACE
                log.warning("replica.unwritten", chunks=run, node=member.node_id, error=str(error))
            else:
                for chunk_hash in run:
                    self.holders[chunk_hash].append(member)
                self.written += len(run)
                tallies[member.node_id][0] += len(run)
                tallies[member.node_id][1] += sum(len(self.data[chunk_hash]) for chunk_hash in run)

    def _runs(self, wave: Mapping[str, Sequence[Member]]) -> Iterator[tuple[Member, list[str]]]:
        """What each node gets, in portions that become durable together."""
        portions: dict[Member, list[str]] = defaultdict(list)
        for chunk_hash, members in wave.items():
            for member in members:
                portions[member].append(chunk_hash)
        for member, hashes in portions.items():
            yield from ((member, run) for run in _portions(hashes, self.data))

    def _write_run(self, member: Member, run: Sequence[str]) -> None:
        """Runs in the node's lane, and on a hanging disk may end long after the batch has."""
        member.lane.volume.write(
            {chunk_hash: self.data[chunk_hash] for chunk_hash in run},
            keep_cached=[chunk_hash for chunk_hash in run if self.asked_first.get(chunk_hash) is member],
        )
        if self.ended.is_set():
            # A rebuild may have listed the node and swapped its sketch in the meantime. Counted once more, even if
            # another chunk occupies the register: that one may go.
            counting.count(self.topology, {member.node_id: run})


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


def _spread(order: Sequence[Member], held: Sequence[Member], count: int) -> list[Member]:
    if not any(member.zone for member in (*order, *held)):
        return list(order[:count])
    by_id = {member.node_id: member for member in order}
    chosen = placement.spread(
        [member.candidate for member in order],
        [member.candidate for member in held],
        count,
    )
    return [by_id[candidate.node_id] for candidate in chosen]


def _by_node(chunks: Mapping[str, Sequence[Member]]) -> dict[str, list[str]]:
    nodes: dict[str, list[str]] = defaultdict(list)
    for chunk_hash, members in chunks.items():
        for member in members:
            nodes[member.node_id].append(chunk_hash)
    return dict(nodes)
