"""Rounds: tasks that the processes of a worker begin by themselves again and again, without a message."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import structlog
from celery import current_app
from django.db import OperationalError

from occsite import lookout
from occsite.lookout import ROUNDS, Round
from storage import tasks
from storage.conf import configuration
from storage.jobs.turns import Turn
from storage.queues import Queue
from tests.support.system import wait_until


class Stopped(BaseException):
    """Ends the thread of a round. Without this exception, the thread would run until its process ends."""


@pytest.fixture
def stop() -> Iterator[Event]:
    event = Event()
    yield event
    event.set()


def begin(kept: Round, task: Any, turn: Turn | None, stop: Event) -> Thread:
    def until_stopped() -> None:
        if stop.is_set():
            raise Stopped
        task()

    def keep() -> None:
        try:
            lookout._keep(kept, until_stopped, turn)
        except Stopped:
            return

    thread = Thread(target=keep, daemon=True)
    thread.start()
    return thread


def test_every_round_has_a_task() -> None:
    for rounds in ROUNDS.values():
        for kept in rounds:
            assert kept.task in current_app.tasks, dir(tasks)


@pytest.fixture
def storage_dir(settings: Any, tmp_path: Path) -> None:
    settings.OCC = dataclasses.replace(configuration(), storage_dir=tmp_path)


def test_one_process_makes_the_rounds_of_a_machine(storage_dir: None, stop: Event) -> None:
    done: list[str] = []
    first, second = Turn("rounds"), Turn("rounds")
    assert first.take()
    first_ends = Event()
    process = begin(Round("first", 0.01), lambda: done.append("first"), first, first_ends)
    begin(Round("second", 0.01), lambda: done.append("second"), second, stop)
    wait_until(lambda: len(done) > 3, 10)
    assert set(done) == {"first"}
    first_ends.set()
    process.join(10)
    first.give_up()  # The kernel does this for a process that ends.
    wait_until(lambda: "second" in done, 10)


def test_several_rounds_of_one_process_do_not_keep_each_other_from_their_turns(
    storage_dir: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Turn | None] = []
    monkeypatch.setattr(lookout, "_begin", lambda kept, task, turn: begun.append(turn))
    lookout.keep_lookout(current_app, [Queue.MAINTENANCE])
    turns = [turn for turn in begun if turn is not None]
    assert len(turns) == 6
    taken = [turn.take() for turn in turns]
    assert all(taken)
    for turn in turns:
        turn.give_up()


def test_an_outage_is_logged_once_and_its_end_too(stop: Event) -> None:
    tries = 0

    def task() -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise OperationalError("away")

    with structlog.testing.capture_logs() as said:
        begin(Round("a round", 0.01), task, None, stop)
        wait_until(lambda: tries > 5, 10)
    assert [(line["event"], line["log_level"]) for line in said] == [
        ("round.failed", "warning"),
        ("round.succeeds_again", "info"),
    ]


def test_a_defect_does_not_end_the_rounds_and_the_wall_clock_does_not_move_them(
    stop: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    def task() -> None:
        tries.append(time.monotonic())
        monkeypatch.setattr(time, "time", lambda: 0.0)  # The wall clock is set back to 1970.
        raise ValueError("a defect")

    begin(Round("a round", 0.01), task, None, stop)
    wait_until(lambda: len(tries) > 3, 10)
