from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils import timezone

from storage.cluster.topology import Topology
from storage.conf import configuration
from storage.management.operation import Operation, size, table
from storage.models import Chunk, Job
from storage.replicas.removing import trashed_at
from storage.services import reclaim


class Command(Operation):
    help = "Removes the copies of chunks that no file has any more, and empties the trash, as far as the grace allows."

    def plan(self, options: Mapping[str, Any]) -> None:
        grace = configuration().reclaim_grace
        plan = reclaim.plan(Topology.load(), grace)
        condemned = Chunk.objects.filter(condemned_at__isnull=False).count()
        bytes_due = size(sum(count for _, count in plan.chunks))
        more = ", and more in later passes" if len(plan.chunks) == reclaim.CHUNKS_PER_PASS else ""
        self.stdout.write(f"{condemned} chunks belong to no file")
        self.stdout.write(
            f"{len(plan.chunks)} of them, {bytes_due} in each copy, for more than {grace} s: into the trash{more}"
        )
        limit = timezone.now().timestamp() - grace
        rows: list[tuple[object, ...]] = [("node", "copies in the trash", "to remove")]
        for member in plan.members:
            trash = member.lane.call(lambda volume=member.lane.volume: list(volume.trashed()))
            rows.append((member.node_id, len(trash), sum(trashed_at(found.token) <= limit for found in trash)))
        for line in table(rows):
            self.stdout.write(line)
        for member in plan.absent:
            self.stdout.write(f"{member.node_id} does not answer: nothing goes from it, and no chunk is forgotten")

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        return [reclaim.request()]
