"""The tasks that a worker's processes begin by themselves, without a message (ADR 17).

A message wakes a worker at once, but Redis may lose, refuse or delay messages. So each process also looks for work in
PostgreSQL, and the maintenance worker times its rounds by the monotonic clock, which nobody can set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Thread

import structlog
from celery import Celery
from django.db import DatabaseError, InterfaceError, connection

from occsite.liveness import show_sign_of_life
from storage.jobs.turns import Turn
from storage.queues import Queue

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Round:
    """A task that is done again and again.

    Attributes:
        task: the name of the task.
        seconds: the time from the start of one run of the task to the start of the next.
        by_one: True if one process of the machine does the task for all processes.
    """

    task: str
    seconds: float
    by_one: bool = True


CLOCKS = Round("storage.compare_clocks", 10.0, by_one=False)
ROUNDS: Mapping[str, tuple[Round, ...]] = {
    Queue.INGEST: (Round("storage.look_for_uploads", 0.5, by_one=False),),
    Queue.MAINTENANCE: (
        Round("storage.look_for_jobs", 1.0, by_one=False),
        Round("storage.sweep", 5.0),
        Round("storage.probe", 5.0),
        Round("storage.survey", 15.0),
        Round("storage.watch_health", 10.0),
        Round("storage.sample", 60.0),
        Round("storage.reclaim", 30.0),
    ),
}


def keep_lookout(app: Celery, queues: Iterable[str]) -> None:
    """Begin the rounds of a worker's queues. Each round repeats in a thread of its own in this process."""
    for queue in queues:
        for kept in ROUNDS.get(queue, ()):
            turn = Turn(kept.task) if kept.by_one else None
            _begin(kept, app.tasks[kept.task], turn)
        _begin(CLOCKS, partial(app.tasks[CLOCKS.task], f"the {queue} worker"), None)


def _begin(kept: Round, task: Callable[[], object], turn: Turn | None) -> None:
    Thread(target=_keep, args=(kept, task, turn), name=kept.task, daemon=True).start()


def _keep(kept: Round, task: Callable[[], object], turn: Turn | None) -> None:
    failing = False
    due = time.monotonic()
    while True:
        due = max(due + kept.seconds, time.monotonic())  # Missed rounds are not repeated.
        time.sleep(max(0.0, due - time.monotonic()))
        show_sign_of_life()
        if turn is not None and not turn.take():
            continue
        try:
            task()
        except (DatabaseError, InterfaceError) as error:
            if not failing:
                log.warning("round.failed", task=kept.task, error=str(error))
            failing = True
        except Exception:
            log.exception("round.failed", task=kept.task)
        else:
            if failing:
                log.info("round.succeeds_again", task=kept.task)
            failing = False
        finally:
            connection.close()
