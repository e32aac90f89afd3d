"""Runs in a process of the system under test, through ``manage.py shell``, and prints what no client can see.

Each rule maps to what breaks it; a system at rest breaks none.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db.models import Q

from storage import routing, trust
from storage.conf import configuration
from storage.models import Chunk, Content, Job, Upload
from storage.routing import StoreUnavailable
from storage.services import reclaim
from storage.topology import Topology


def print_findings(limit: float) -> None:
    """Wait until no work is left, for so many seconds at most, and print all that is wrong then."""
    deadline = time.monotonic() + limit
    while any(rule() for rule in WORK.values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    json.dump({name: rule() for name, rule in {**WORK, **STATE}.items()}, sys.stdout)


def reclaim_until(stop: str) -> None:
    """Reclaim without any grace, over and over, until the file ``stop`` is there; print what was done."""
    removed = forgotten = purged = 0
    while not Path(stop).exists():
        outcome = reclaim.reclaim(0)
        removed += outcome.removed
        forgotten += outcome.forgotten
        purged += outcome.purged
    json.dump({"removed": removed, "forgotten": forgotten, "purged": purged}, sys.stdout)


# -- work that must come to an end -----------------------------------------


def open_jobs() -> list[str]:
    jobs = Job.objects.exclude(state__in=Job.TERMINAL)
    return [
        f"{job.kind} {job.pk}: {job.state}, {job.attempts} attempts, {job.waiting_for or job.error}" for job in jobs
    ]


def uploads_under_way() -> list[str]:
    return [f"{upload.pk}: {upload.state}, {upload.pins.count()} pins" for upload in Upload.objects.all()]


def staged() -> list[str]:
    return sorted(path.name for path in configuration().staging_dir.iterdir())


def untrusted_sketches() -> list[str]:
    try:
        return [member.node_id for member in trust.untrusted(Topology.load())]
    except StoreUnavailable as error:
        return [repr(error)]


# -- state that must be sound ----------------------------------------------


def false_negatives() -> list[str]:
    """Replicas on a volume whose register is zero, and that are still there; at rest every sketch is trusted."""
    seen = Topology.load()
    missed = []
    for member in seen.members:
        hashes = [replica.chunk_hash for replica in member.lane.volume.replicas()]
        counts = routing.store_of(seen.cluster).lookup([member.node_id], hashes).counts[0]
        empty = [chunk_hash for chunk_hash, count in zip(hashes, counts, strict=True) if not count]
        there = member.lane.volume.sizes(empty)  # it may have been un-counted since it was listed
        missed += [f"{member.node_id} {h}" for h, size in zip(empty, there, strict=True) if size is not None]
    return missed


def contents_that_nobody_finishes() -> list[str]:
    """Neither ready nor with an upload that could still make them so."""
    return [str(content) for content in Content.objects.exclude(state=Content.State.READY).filter(uploads=None)]


def condemned_though_used() -> list[str]:
    used = Q(entries__isnull=False) | Q(pins__isnull=False)
    return [str(chunk) for chunk in Chunk.objects.filter(used, condemned_at__isnull=False).distinct()]


def never_reclaimed() -> list[str]:
    """Chunks that nothing refers to and that reclaim will not look at."""
    unused = Chunk.objects.filter(condemned_at__isnull=True, entries__isnull=True, pins__isnull=True)
    return [str(chunk) for chunk in unused]


Rule = Callable[[], Any]

WORK: dict[str, Rule] = {
    "jobs not terminal": open_jobs,
    "uploads not ended": uploads_under_way,
    "staging not empty": staged,
    "sketches not trusted": untrusted_sketches,
}
STATE: dict[str, Rule] = {
    "false negatives": false_negatives,
    "contents half there": contents_that_nobody_finishes,
    "chunks condemned though used": condemned_though_used,
    "chunks never reclaimed": never_reclaimed,
}
