from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser

from storage.management.operation import Operation, size, table
from storage.models import Job
from storage.services import drain


class Command(Operation):
    help = "Empties a node and takes it out of the cluster."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("node", metavar="NODE", help="such as node_000")

    def plan(self, options: Mapping[str, Any]) -> None:
        plan = drain.plan(options["node"])
        rows = [
            ("node", "copies", "to remove", "to write elsewhere", "unknown copies"),
            (plan.node_id, plan.replicas, size(plan.bytes), size(plan.to_write), plan.orphans),
        ]
        for line in table(rows):
            self.stdout.write(line)

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        return [drain.request(options["node"])]

    def conclude(self, job: Job) -> None:
        super().conclude(job)
        self.stdout.write(f"{job.subject} is retired")
