from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser

from storage import plans
from storage.management.operation import Operation
from storage.models import Job
from storage.plans import Words
from storage.services import drain


class Command(Operation):
    help = "Empties a node and takes it out of the cluster."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("node", metavar="NODE", help="such as node_000")

    def plan(self, options: Mapping[str, Any]) -> Words:
        return plans.of_drain(drain.plan(options["node"]))

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        return [drain.request(options["node"])]

    def conclude(self, job: Job) -> None:
        super().conclude(job)
        self.stdout.write(f"{job.subject} is retired")
