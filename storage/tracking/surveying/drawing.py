"""Sketches of a planned state of the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sketches.estimators import spectrum_from_registers
from sketches.lcrs import LCRS
from storage.cluster.topology import Topology
from storage.models import Content
from storage.tracking.history import Span
from storage.tracking.surveying.overlaps import Overlap, overlap_of, replicas_of
from storage.tracking.surveying.targets import lined_up, targets


class Drawing:
    """In-memory sketches of a planned state, which tell what a survey of that state would say.

    Args:
        topology: the nodes; each online node gets an empty sketch.
    """

    def __init__(self, topology: Topology) -> None:
        cluster = topology.cluster
        self._online = topology.online
        self._tau = cluster.tau
        self._n_prime = cluster.n_prime
        self._sketches = {
            member.node_id: LCRS(cluster.n_prime, cluster.tau, cluster.sketch_seed) for member in self._online
        }

    def add(self, planned: Mapping[str, Sequence[str]]) -> None:
        """Count planned copies, given as node id → chunk hashes; nodes without a sketch are left out."""
        for node_id, chunk_hashes in planned.items():
            if node_id in self._sketches:
                self._sketches[node_id].add(chunk_hashes)

    def overlap(self) -> Overlap | None:
        """The number of chunks that every two nodes would share in the planned state; None if the registers are too
        full.
        """
        registers = lined_up(list(self._sketches.values()), self._n_prime)
        replicas = replicas_of(registers, self._tau, spectrum_from_registers(registers, len(targets()) - 1))
        if replicas is None:
            return None
        today = Span(frozenset(self._sketches), Content.chunks_by_target())
        return overlap_of(registers, replicas, self._online, [today])
