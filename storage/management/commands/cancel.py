from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.core.management.base import CommandParser

from storage.exceptions import NoSuchJob
from storage.management.operation import Door, label
from storage.models import Job
from storage.services import cancel


class Command(Door):
    help = "Ends a maintenance job: what it has done stays done. A node that was to be drained is active again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("job", metavar="JOB", help="its id; `manage.py jobs` lists them")

    def act(self, options: Mapping[str, Any]) -> None:
        try:
            found = Job.objects.get(pk=UUID(options["job"]))
        except (ValueError, Job.DoesNotExist):
            raise NoSuchJob(f"no job {options['job']}") from None
        cancel.cancel(found)
        self.stdout.write(f"{label(found)} is cancelled")
