"""Figures of the cluster over time, for the plots of the health page. A worker keeps one sample a minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import redis
import structlog
from django.db.models import Q, Sum

from storage import counters
from storage.counters import Event, Outcome
from storage.models import Job, LastSurvey, Node, Sample
from storage.models.clock import Clock
from storage.tracking.surveying import Survey

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Figures:
    """What a sample holds. The counts go on from sample to sample, and begin again at 0 when Redis is emptied.

    Attributes:
        files: uploads that were stored; None while Redis is away, like the next three figures.
        bytes: bytes of these uploads.
        reads: chunks that were read for downloads.
        later_looks: chunks that were read, and that the first node on their route did not have.
        queued: uploads that wait for a worker.
        waiting: maintenance jobs that wait.
        stored: bytes on all nodes.
        disks: bytes of all file systems of nodes; 0 if they are not known.
        free: free bytes on these file systems, in steps of a sixteenth of each.
        load: chunks per register of a sketch; None without a survey, like ``false_positives``.
        false_positives: the probability that a register is not zero for a chunk that its node does not have.
    """

    files: int | None
    bytes: int | None
    reads: int | None
    later_looks: int | None
    queued: int
    waiting: int
    stored: int
    disks: int
    free: int
    load: float | None
    false_positives: float | None


def take() -> None:
    """Take a sample now. Nothing is surveyed or listed: the figures are those that rows and Redis have."""
    Sample.keep(asdict(_figures()))


def samples(hours: int) -> Sequence[tuple[datetime, dict[str, Any]]]:
    """The samples of the last hours, the oldest first: each with its time."""
    rows = Sample.objects.filter(at__gt=Clock() - timedelta(hours=hours)).order_by("at")
    return list(rows.values_list("at", "figures"))


def _figures() -> Figures:
    queued = Job.objects.filter(state=Job.State.QUEUED)
    numbers = {queue: queued.filter(queue=queue).count() for queue in Job.Queue}
    nodes = Node.objects.exclude(state=Node.State.RETIRED)
    systems = {
        name: (size, weight)
        for name, size, weight in nodes.filter(~Q(file_system=""), online=True).values_list(
            "file_system", "file_system_bytes", "weight"
        )
    }
    last = LastSurvey.objects.filter(id=1).first()
    survey = Survey.from_json(last.document) if last else None
    return Figures(
        **_counts(),
        queued=numbers[Job.Queue.INGEST],
        waiting=numbers[Job.Queue.MAINTENANCE],
        stored=nodes.aggregate(bytes=Sum("bytes"))["bytes"] or 0,
        disks=sum(size for size, _ in systems.values()),
        free=round(sum(size * weight for size, weight in systems.values())),
        load=round(survey.load, 4) if survey else None,
        false_positives=round(survey.false_positive_rate, 6) if survey else None,
    )


def _counts() -> dict[str, int | None]:
    try:
        counts = counters.read()
    except redis.RedisError as error:
        log.warning("counters.unavailable", error=str(error))
        return dict.fromkeys(("files", "bytes", "reads", "later_looks"))
    return {
        "files": counts.jobs.get((Job.Kind.INGEST, Outcome.SUCCEEDED), 0),
        "bytes": counts.sizes.get(Job.Kind.INGEST, 0),
        "reads": counts.events[Event.CHUNKS_READ],
        "later_looks": counts.events[Event.LATER_LOOKS],
    }
