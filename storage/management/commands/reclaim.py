from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storage import plans
from storage.conf import configuration
from storage.management.operation import Operation
from storage.models import Job
from storage.plans import Words
from storage.services import reclaim


class Command(Operation):
    help = "Removes the copies of chunks that no file has any more, and empties the trash, as far as the grace allows."

    def plan(self, options: Mapping[str, Any]) -> Words:
        return plans.of_reclaim(reclaim.preview(configuration().reclaim_grace))

    def begin(self, options: Mapping[str, Any]) -> Sequence[Job]:
        return [reclaim.request()]
