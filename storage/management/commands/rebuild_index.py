from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser

from storage import plans
from storage.management.operation import Operation
from storage.models import Job
from storage.plans import Words
from storage.services import reindex


class Command(Operation):
    help = "Makes the index of a node again from its packs, and compares the node with the others."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("node", metavar="NODE", help="such as node_000")

    def plan(self, options: Mapping[str, Any]) -> Words:
        return plans.of_index(options["node"], reindex.plan(options["node"]))

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        job, totals = reindex.reindex(options["node"])
        self.print(plans.of_index(options["node"], totals))
        return [job]
