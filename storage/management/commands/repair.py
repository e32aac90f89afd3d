from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storage.management.operation import Operation
from storage.models import Job
from storage.plans import Table, Words, size
from storage.services import repair


class Command(Operation):
    help = "Makes the copies that are missing in the whole cluster, those of chunks with a single copy first."

    def plan(self, options: Mapping[str, Any]) -> Words:
        plan = repair.plan_all()
        if not plan:
            return ["nothing to do: every chunk has the copies that it should have"]
        rows: list[tuple[object, ...]] = [("copies now", "chunks", "to write")]
        rows += [(copies, chunks, size(count)) for copies, (chunks, count) in plan.items()]
        lost = [f"{plan[0][0]} chunks have no copy on a node that answers: nothing can be added"] if 0 in plan else []
        return [Table(rows), *lost]

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        return [repair.request_all()]
