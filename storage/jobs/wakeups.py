"""Wake workers. A message says only "there is work in this queue". The Job table says which work (RACES 28)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import redis
import structlog
from celery import current_app
from django.db import transaction

from storage.models import Job
from storage.queues import Queue
from storage.redis_connection import connect

log = structlog.get_logger(__name__)

TASKS: Mapping[Queue, str] = {Queue.INGEST: "storage.ingest", Queue.MAINTENANCE: "storage.maintain"}
PENDING_SECONDS = 5


def on_commit(queue: Queue) -> None:
    """Wake a worker of the queue once the transaction has committed."""
    transaction.on_commit(lambda: wake(queue))


def wake(queue: Queue, *, hushed: bool = False) -> None:
    """Send a wake-up, unless an earlier wake-up is pending. If a wake-up is lost, a sweep sends another.

    A listening worker hears the wake-up at once. A Celery task costs far more than such a wake-up, and is sent only if
    no worker listens.

    Args:
        queue: the queue that has work.
        hushed: True if the caller has called ``hush`` and ends the suppression now: the pending flag that ``hush`` set
            does not hold this wake-up back.
    """
    try:
        if connect().set(_pending(queue), 1, nx=not hushed, ex=PENDING_SECONDS) and not _is_heard(queue):
            current_app.send_task(TASKS[queue], retry=False)
    except Exception as error:  # noqa: BLE001  The broker's client may raise anything, and the sweeper repeats the wake-up.
        log.warning("wakeup.lost", queue=queue, error=repr(error))


def _is_heard(queue: Queue) -> bool:
    """Push an element onto the bell, a Redis list; True if a worker was listening.

    Redis hands the element to a waiting client before it runs the next command. If the next command finds the element
    still in the list, no worker was waiting. The element stays in the list, for a worker that is just about to listen.
    """
    with connect().pipeline(transaction=False) as pipe:
        pipe.lpush(_bell(queue), 1)
        pipe.llen(_bell(queue))
        pipe.ltrim(_bell(queue), 0, 0)
        _, left, _ = pipe.execute()
    return not left


def listen(queue: Queue, seconds: float) -> bool:
    """Wait at most ``seconds`` for a wake-up; True if one has come."""
    try:
        return connect().blpop([_bell(queue)], seconds) is not None
    except redis.RedisError:
        return False


def taken(queue: Queue) -> None:
    """Clear the pending flag: from here on, new work sends a new wake-up. A worker calls this function before its first
    claim.
    """
    try:
        connect().delete(_pending(queue))
    except redis.RedisError as error:
        log.warning("wakeup.pending", queue=queue, error=repr(error))


def hush(queue: Queue, seconds: float) -> None:
    """Suppress wake-ups for ``seconds``, or until ``taken`` is called. The caller looks into the queue before this time
    is over.
    """
    try:
        connect().set(_pending(queue), 1, px=int(seconds * 1000))
    except redis.RedisError as error:
        log.warning("wakeup.pending", queue=queue, error=repr(error))


def announce(*jobs: Job) -> None:
    """Tell the threads that wait for these jobs that the jobs' states have changed."""
    announce_with({job: {} for job in jobs})


def announce_with(messages: Mapping[Job, Mapping[str, Any]]) -> None:
    """Tell the threads that wait for jobs that the jobs have changed. An announcement is kept for a minute.

    Args:
        messages: job → data about its success, which a waiting thread would otherwise have to ask for; empty if only
            the job's state has changed.
    """
    try:
        with connect().pipeline(transaction=False) as pipe:
            for job, message in messages.items():
                pipe.lpush(_changed(job.pk), json.dumps(message))
                pipe.expire(_changed(job.pk), 60)
            pipe.execute()
    except redis.RedisError as error:
        log.warning("announcement.lost", jobs=[str(job.pk) for job in messages], error=repr(error))


def await_change(job_id: UUID, seconds: float) -> Mapping[str, Any] | None:
    """Wait at most ``seconds`` until the job is announced. Every waiting thread sees the announcement.

    Returns:
        The message that was announced; None if there was none. If Redis does not answer, None is returned at once, so
        the caller must pause between calls.
    """
    try:
        # BLMOVE moves the element from the list to the same list, so the element stays for the next waiting thread, and
        # expires.
        moved = connect().blmove(_changed(job_id), _changed(job_id), seconds, "LEFT", "RIGHT")  # type: ignore[arg-type]  # Redis takes fractions
    except redis.RedisError:
        return None
    return None if moved is None else json.loads(moved)


def _pending(queue: Queue) -> str:
    return f"occ:wakeup:{queue}"


def _bell(queue: Queue) -> str:
    return f"occ:bell:{queue}"


def _changed(job_id: UUID) -> str:
    return f"occ:job:{job_id}"
