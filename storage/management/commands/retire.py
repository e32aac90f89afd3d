from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser

from storage import plans
from storage.management.operation import Operation
from storage.models import Job
from storage.plans import Words
from storage.services import retire


class Command(Operation):
    help = "Gives up a node whose disk is dead, and repairs what it held from the other nodes."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("node", metavar="NODE", help="such as node_000")

    def plan(self, options: Mapping[str, Any]) -> Words:
        return plans.of_retirement(options["node"], retire.plan(options["node"]))

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        job = retire.retire(options["node"])
        self.stdout.write(f"{options['node']} is retired")
        return [job]
