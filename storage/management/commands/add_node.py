from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser

from storage.cluster import topology
from storage.management.operation import Operation
from storage.models import Job
from storage.plans import Words
from storage.services import provision


class Command(Operation):
    help = "Brings a new node into the cluster, and moves to it what the others hold too much of."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        where = "where to make its volume, such as pack:///srv/disk6; by default in a folder next to the others"
        parser.add_argument("--url", default="", help=where)
        parser.add_argument("--zone", default="", help="replicas go to distinct zones first")

    def plan(self, options: Mapping[str, Any]) -> Words:
        node = provision.plan(options["url"], options["zone"])
        return [f"{node.node_id} would be made at {topology.absolute_url(node)}"]

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        node = provision.add(options["url"], options["zone"])
        self.stdout.write(f"{node.node_id} was made at {topology.absolute_url(node)}")
        return list(Job.objects.open().filter(kind=Job.Kind.REBALANCE_ALL))
