"""Claim as many queued uploads as fit a batch, so that many small uploads share the cost of a batch."""

from __future__ import annotations

import time
from enum import IntEnum

from storage.jobs import wakeups
from storage.jobs.turns import in_turn
from storage.models import Job
from storage.services.ingest.uploads import ingest

CLAIM_JOBS = 64
CLAIM_BYTES = 16 << 20
ALONE_BYTES = 1 << 20  # A claim of fewer bytes is a small batch, not worth a second worker.
ALONE_SECONDS = 0.1
"""For this many seconds, no second worker is woken for a small batch. If the first worker takes longer, its disk may be
slow, so another worker helps."""


class Claimed(IntEnum):
    """How much work a claim has found."""

    NOTHING = 0
    LITTLE = 1
    MUCH = 2


def run_all(until: float) -> None:
    """Ingest queued uploads, batch by batch, until none is queued, or the monotonic clock reaches ``until``.

    Two workers would only divide small batches between them. So after a small batch, only one worker of the machine
    goes on: the worker that holds the turn.
    """
    with in_turn("ingest") as is_mine:
        claimed = Claimed.MUCH
        while (claimed is Claimed.MUCH or (claimed and is_mine)) and time.monotonic() < until:
            claimed = run_queued(goes_on=is_mine)


def run_queued(*, goes_on: bool = False) -> Claimed:
    """Claim as many queued uploads as fit a batch, and ingest them together.

    Args:
        goes_on: True if this worker looks into the queue again afterwards. Until that look, no other worker is woken
            for uploads that arrive.
    """
    jobs = _claim(goes_on)
    if not jobs:
        return Claimed.NOTHING
    is_much = len(jobs) == CLAIM_JOBS or sum(job.size for job in jobs) >= ALONE_BYTES
    if is_much:
        wakeups.wake(Job.Queue.INGEST, hushed=goes_on)  # The queue may hold more jobs.
    ingest(jobs)
    return Claimed.MUCH if is_much else Claimed.LITTLE


def _claim(goes_on: bool) -> list[Job]:
    if goes_on:
        # Wake-ups stop before this claim: jobs that are queued after it wait for this worker's next claim.
        wakeups.hush(Job.Queue.INGEST, ALONE_SECONDS)
        if jobs := Job.objects.claim(Job.Queue.INGEST, most=CLAIM_JOBS, most_bytes=CLAIM_BYTES):
            return jobs
    # The flag that a wake-up is pending is cleared before the claim. If the flag was cleared after the claim, a job
    # that is queued between the two would wake no worker.
    wakeups.taken(Job.Queue.INGEST)
    return Job.objects.claim(Job.Queue.INGEST, most=CLAIM_JOBS, most_bytes=CLAIM_BYTES)
