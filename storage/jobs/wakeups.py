"""Waking workers. A message says only "there is work in this queue"; the Job table says what (RACES 28)."""

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
    """Send a wake-up, unless one that no worker has taken yet is on its way. Losing it costs a sweep.

    Who listens hears it at once; a Celery task, which is dearer by far, is sent when nobody does.

    Args:
        queue: where there is work.
        hushed: whether this is from who has said ``hush``, which is over now.
    """
    try:
        if connect().set(_pending(queue), 1, nx=not hushed, ex=PENDING_SECONDS) and not _is_heard(queue):
            current_app.send_task(TASKS[queue], retry=False)
    except Exception as error:  # noqa: BLE001  whatever the broker's client raises: the sweeper is behind it
        log.warning("wakeup.lost", queue=queue, error=repr(error))


def _is_heard(queue: Queue) -> bool:
    """Ring; whether a worker was listening.

    Redis hands an element to a client that waits for one before it turns to the next command: what is still there then,
    nobody was waiting for. It stays, for a worker that is just about to listen.
    """
    with connect().pipeline(transaction=False) as pipe:
        pipe.lpush(_bell(queue), 1)
        pipe.llen(_bell(queue))
        pipe.ltrim(_bell(queue), 0, 0)
        _, left, _ = pipe.execute()
    return not left


def listen(queue: Queue, seconds: float) -> bool:
    """Wait for a wake-up, for so many seconds at most; whether one has come."""
    try:
        return connect().blpop([_bell(queue)], seconds) is not None
    except redis.RedisError:
        return False


def taken(queue: Queue) -> None:
    """Say that a wake-up has arrived: from here on, new work sends a new one. Called before the first claim."""
    try:
        connect().delete(_pending(queue))
    except redis.RedisError as error:
        log.warning("wakeup.pending", queue=queue, error=repr(error))


def hush(queue: Queue, seconds: float) -> None:
    """Have no wake-ups sent for so long, or until ``taken``: who says so will look by itself before that."""
    try:
        connect().set(_pending(queue), 1, px=int(seconds * 1000))
    except redis.RedisError as error:
        log.warning("wakeup.pending", queue=queue, error=repr(error))


def announce(*jobs: Job) -> None:
    """Tell those who wait that the jobs' states have changed."""
    announce_with({job: {} for job in jobs})


def announce_with(messages: Mapping[Job, Mapping[str, Any]]) -> None:
    """Tell those who wait that jobs have succeeded, and what they would otherwise have to ask for; for a minute."""
    try:
        with connect().pipeline(transaction=False) as pipe:
            for job, message in messages.items():
                pipe.lpush(_changed(job.pk), json.dumps(message))
                pipe.expire(_changed(job.pk), 60)
            pipe.execute()
    except redis.RedisError as error:
        log.warning("announcement.lost", jobs=[str(job.pk) for job in messages], error=repr(error))


def await_change(job_id: UUID, seconds: float) -> Mapping[str, Any] | None:
    """Wait until the job is announced, for so many seconds at most. Every waiter sees the announcement.

    Returns:
        What was announced; None when nothing was, and at once when Redis is away: the caller paces itself.
    """
    try:
        # The element is moved onto its own list: it stays for the next waiter, and expires.
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
