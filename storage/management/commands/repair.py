from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storage.management.operation import Operation, size, table
from storage.models import Job
from storage.services import repair


class Command(Operation):
    help = "Makes the copies that are missing in the whole cluster, those of chunks with a single copy first."

    def plan(self, options: Mapping[str, Any]) -> None:
        plan = repair.plan_all()
        if not plan:
            self.stdout.write("nothing to do: every chunk has the copies that it should have")
            return
        rows: list[tuple[object, ...]] = [("copies now", "chunks", "to write")]
        rows += [(copies, chunks, size(count)) for copies, (chunks, count) in plan.items()]
        for line in table(rows):
            self.stdout.write(line)
        if 0 in plan:
            self.stdout.write(f"{plan[0][0]} chunks have no copy on a node that answers: nothing can be added")

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        return [repair.request_all()]
