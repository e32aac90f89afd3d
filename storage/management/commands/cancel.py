from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.core.management.base import CommandParser

from storage.exceptions import NoSuchJob
from storage.jobs.naming import name_of
from storage.management.operation import OperatorCommand
from storage.models import Job
from storage.services import cancel


class Command(OperatorCommand):
    help = "Ends a maintenance job: what it has done stays done. A node that was to be drained is active again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("job", metavar="JOB", help="its id, or the beginning of it; `manage.py jobs` lists them")

    def act(self, options: Mapping[str, Any]) -> None:
        found = _find(options["job"])
        cancel.cancel(found)
        self.stdout.write(f"{name_of(found)} is cancelled")


def _find(prefix: str) -> Job:
    """The job whose id begins with the hex digits; there may be hyphens between them.

    Raises:
        NoSuchJob: no job has such an id, or several have.
    """
    digits = prefix.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{4,32}", digits):
        raise NoSuchJob(f"no job {prefix}")
    first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    found = list(Job.objects.filter(pk__range=(first, last))[:2])
    if len(found) != 1:
        raise NoSuchJob(f"several jobs begin with {prefix}" if found else f"no job {prefix}")
    return found[0]
