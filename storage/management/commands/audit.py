from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser

from storage.cluster.topology import Topology
from storage.exceptions import ClusterUnavailable
from storage.management.operation import Operation
from storage.models import Job
from storage.plans import Table, Words, size
from storage.services import audit

COUNTED = ("short", "lost", "surplus", "orphans", "leftovers")


class Command(Operation):
    help = "Compares nodes with what they should hold, reads every byte of them, and mends what is wrong."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("nodes", nargs="*", metavar="NODE", help="such as node_000; all that are online if none is")

    def plan(self, options: Mapping[str, Any]) -> Words:
        rows: list[tuple[object, ...]] = [("node", "copies", "to read", "for at least", *COUNTED)]
        for node_id in self._chosen(options["nodes"]):
            plan = audit.plan(node_id)
            found = plan.found
            time = timedelta(seconds=round(plan.seconds))
            rows.append((node_id, found["replicas"], size(found["bytes"]), time, *(found[name] for name in COUNTED)))
        return [Table(rows), "short, lost and surplus are chunks of the whole cluster"]

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        return [audit.request(node_id) for node_id in self._chosen(options["nodes"])]

    def _chosen(self, nodes: list[str]) -> list[str]:
        """The ids of the named nodes, which must exist; without names, the ids of all nodes that are online."""
        members = Topology.load().members
        if nodes:
            return [Topology.load().member(node_id).node_id for node_id in nodes]
        for member in members:
            if not member.online:
                self.stderr.write(f"{member.node_id} is offline and left out")
        online = [member.node_id for member in members if member.online]
        if not online:
            raise ClusterUnavailable("no node is online")
        return online
