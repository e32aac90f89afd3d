from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.models.job import Job


@dataclass(frozen=True)
class LastCensus:
    """The copies on the disks, as the last listing of all nodes found them.

    Attributes:
        taken_at: the time at which the census ended.
        chunks: the number of chunks on record that have a copy.
        copies: the number of copies of all chunks on record.
        bytes: the bytes of the copies of all chunks on record.
        stored: node id → the bytes that these copies take on the node; empty if an earlier release took the census.
        short: the number of chunks with fewer copies than they should have.
        lost: the number of chunks without a copy.
        surplus: the number of chunks with more copies than they should have.
        orphans: the number of chunks that have copies but are not on record.
        silent: the nodes that could not be listed. The copies on silent nodes are in no figure of a census.
    """

    taken_at: datetime
    chunks: int
    copies: int
    bytes: int
    stored: dict[str, int]
    short: int
    lost: int
    surplus: int
    orphans: int
    silent: list[str]

    @classmethod
    def load(cls) -> LastCensus | None:
        """The last census that was completed; None if there is none yet."""
        job = Job.objects.last_of(Job.Kind.CENSUS)
        if job is None or job.finished_at is None:
            return None
        result: dict[str, Any] = job.result or {}
        names = ("chunks", "bytes", "short", "lost", "surplus", "orphans", "silent")
        return cls(
            taken_at=job.finished_at,
            copies=result["replicas"],
            stored=result.get("stored", {}),
            **{name: result[name] for name in names},
        )

    def stored_on(self, node_id: str) -> int | None:
        """The bytes that the copies on a node take; None if the node was not listed, or not completely."""
        return None if node_id in self.silent else self.stored.get(node_id)

    @property
    def all_stored(self) -> int | None:
        """The bytes that these copies take on all nodes; None if an earlier release took the census."""
        return sum(self.stored.values()) if self.stored else None
