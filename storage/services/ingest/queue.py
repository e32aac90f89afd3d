"""What is queued: claimed as much as fits, so that the cost of a batch is shared by many small uploads."""

from __future__ import annotations

import time
from enum import IntEnum

from storage.jobs import wakeups
from storage.jobs.turns import in_turn
from storage.models import Job
from storage.services.ingest.uploads import ingest

CLAIM_JOBS = 64
CLAIM_BYTES = 16 << 20
ALONE_BYTES = 1 << 20  # Two workers would only halve each other's batches of less than this.
ALONE_SECONDS = 0.1  # One worker is left alone with little for so long; if it takes longer, a disk may hold it up.


class Claimed(IntEnum):
    """How much was there to do."""

    NOTHING = 0
    LITTLE = 1
    MUCH = 2


def run_all(until: float) -> None:
    """Ingest what is queued, batch by batch, until nothing is, or until a time of the monotonic clock.

    Two workers would only halve each other's batches of little: it is left to the one whose turn it is.
    """
    with in_turn("ingest") as is_mine:
        claimed = Claimed.MUCH
        while (claimed is Claimed.MUCH or (claimed and is_mine)) and time.monotonic() < until:
            claimed = run_queued(goes_on=is_mine)


def run_queued(*, goes_on: bool = False) -> Claimed:
    """Claim what is queued, as much as fits, and ingest it together.

    Args:
        goes_on: whether this worker looks again afterwards: nobody has to be woken for what comes meanwhile.
    """
    jobs = _claim(goes_on)
    if not jobs:
        return Claimed.NOTHING
    is_much = len(jobs) == CLAIM_JOBS or sum(job.size for job in jobs) >= ALONE_BYTES
    if is_much:
        wakeups.wake(Job.Queue.INGEST, hushed=goes_on)  # there may be more
    ingest(jobs)
    return Claimed.MUCH if is_much else Claimed.LITTLE


def _claim(goes_on: bool) -> list[Job]:
    if goes_on:
        wakeups.hush(Job.Queue.INGEST, ALONE_SECONDS)  # before the look: what comes after it waits for the next one
        if jobs := Job.objects.claim(Job.Queue.INGEST, most=CLAIM_JOBS, most_bytes=CLAIM_BYTES):
            return jobs
    wakeups.taken(Job.Queue.INGEST)  # The flag falls before the look: nobody is woken for what comes now.
    return Job.objects.claim(Job.Queue.INGEST, most=CLAIM_JOBS, most_bytes=CLAIM_BYTES)
