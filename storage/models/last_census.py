from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.models.job import Job


@dataclass(frozen=True)
class LastCensus:
    """What is on the disks, as the last listing of all nodes has found.

    Attributes:
        taken_at: when it ended.
        chunks: chunks on record of which a copy was found.
        copies: of them.
        bytes: of these copies.
        short: chunks with fewer copies than they should have.
        lost: chunks without a copy.
        surplus: chunks with more copies than they should have.
        orphans: chunks that are not on record, of which there are copies.
        silent: nodes that could not be listed: their copies are not in these figures.
    """

    taken_at: datetime
    chunks: int
    copies: int
    bytes: int
    short: int
    lost: int
    surplus: int
    orphans: int
    silent: list[str]

    @classmethod
    def load(cls) -> LastCensus | None:
        """The last census that came to its end; None if there is none yet."""
        job = Job.objects.last_of(Job.Kind.CENSUS)
        if job is None or job.finished_at is None:
            return None
        found: dict[str, Any] = job.result or {}
        names = ("chunks", "bytes", "short", "lost", "surplus", "orphans", "silent")
        return cls(taken_at=job.finished_at, copies=found["replicas"], **{name: found[name] for name in names})
