from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from storage.jobs.naming import subject_of
from storage.management.operation import OperatorCommand, table
from storage.models import Job

ENDED = 10  # The number of ended jobs that are shown.
HOUSEKEEPING = (Job.Kind.REFRESH_HEALTH, Job.Kind.REBUILD_SKETCH)  # Only the system asks for such jobs.


class Command(OperatorCommand):
    help = f"Lists the maintenance jobs: those that are queued or running, and the last {ENDED} that ended."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--all", action="store_true", help="also what the system does for itself, and whole ids")

    def act(self, options: Mapping[str, Any]) -> None:
        jobs = Job.objects.filter(queue=Job.Queue.MAINTENANCE)
        if not options["all"]:
            jobs = jobs.exclude(kind__in=HOUSEKEEPING)
        unfinished = jobs.open().order_by("-state", "priority", "created_at")
        ended = jobs.filter(state__in=Job.TERMINAL).order_by("-finished_at")[:ENDED]
        now = timezone.now()
        rows = [("id", "kind", "subject", "state", "done", "waiting for", "age")]
        for job in (*unfinished, *ended):
            age = timedelta(seconds=round((now - job.created_at).total_seconds()))
            done = f"{job.done}/{job.total}" if job.total else "-"
            job_id = str(job.pk) if options["all"] else str(job.pk)[:8]
            rows.append((job_id, job.kind, subject_of(job), job.state, done, job.waiting_for or "-", str(age)))
        for line in table(rows):
            self.stdout.write(line)
