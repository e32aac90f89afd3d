from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import current_app
from django.db import connection

from storage import tasks
from storage.exceptions import ContentUnavailable, VolumeOffline
from storage.jobs import wakeups
from storage.models import Chunk, Job
from storage.models.clock import Clock
from storage.models.job_queue import MAX_ATTEMPTS
from storage.services import catalogue, reclaim
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.system import wait_until

wake, listen = wakeups.wake, wakeups.listen  # These are the real functions, even where a test replaces them.


def job_of(kind: str) -> Job:
    return Job.objects.get(kind=kind)


def raising(error: Exception) -> object:
    def work(_: Job) -> None:
        raise error

    return work


def test_every_kind_of_maintenance_has_its_work() -> None:
    assert tasks.WORK.keys() == set(Job.Kind) - {Job.Kind.INGEST, Job.Kind.INGEST_SEGMENT}


def test_maintenance_does_what_is_queued(cluster: ClusterUnderTest) -> None:
    Job.request(Job.Kind.REBUILD_SKETCH, "node_001")
    Job.request(Job.Kind.REFRESH_HEALTH, "all")
    tasks.maintain()
    assert {job.state for job in Job.objects.all()} == {Job.State.SUCCEEDED}


def test_while_a_maintenance_job_runs_no_second_one_takes_the_place_of_the_sweeps(cluster: ClusterUnderTest) -> None:
    Job.request(Job.Kind.REFRESH_HEALTH, "all")
    running = Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)[0]
    Job.request(Job.Kind.REBUILD_SKETCH, "node_001")
    tasks.maintain()
    assert job_of(Job.Kind.REBUILD_SKETCH).state == Job.State.QUEUED
    running.succeed({})
    tasks.maintain()
    assert job_of(Job.Kind.REBUILD_SKETCH).state == Job.State.SUCCEEDED


def test_a_job_that_lacks_a_node_waits_and_loses_no_attempt(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tasks.WORK, Job.Kind.REFRESH_HEALTH, raising(VolumeOffline("away")))
    Job.request(Job.Kind.REFRESH_HEALTH, "all")
    tasks.maintain()
    job = job_of(Job.Kind.REFRESH_HEALTH)
    assert (job.state, job.waiting_for, job.attempts) == (Job.State.QUEUED, "nodes", 0)


@pytest.mark.parametrize("error", [ContentUnavailable("no copy"), RuntimeError("a defect")])
def test_a_job_that_always_fails_ends_failed(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setitem(tasks.WORK, Job.Kind.REFRESH_HEALTH, raising(error))
    Job.request(Job.Kind.REFRESH_HEALTH, "all")
    for _ in range(MAX_ATTEMPTS):
        tasks.maintain()
        Job.objects.filter(state=Job.State.QUEUED).update(not_before=Clock())
    job = job_of(Job.Kind.REFRESH_HEALTH)
    assert (job.state, job.attempts) == (Job.State.FAILED, MAX_ATTEMPTS)
    assert str(error) in str(job.error)


def test_a_task_that_always_finds_work_makes_way(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    monkeypatch.setattr(wakeups, "wake", woken.append)
    monkeypatch.setattr(tasks, "SHIFT", -1.0)
    for node in ("node_000", "node_001"):
        Job.request(Job.Kind.REBUILD_SKETCH, node)
    tasks.maintain()
    assert Job.objects.filter(state=Job.State.SUCCEEDED).count() == 1
    assert Job.Queue.MAINTENANCE in woken
    cluster.accept(content_of(1))
    tasks.ingest_queued()
    assert Job.Queue.INGEST in woken


def test_a_task_takes_what_comes_while_it_listens(
    cluster: ClusterUnderTest, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(wakeups, "wake", wake)
    monkeypatch.setattr(current_app, "send_task", lambda name, **_: messages.append(name))
    listens: Iterator[Callable[[], bool]] = iter([lambda: listen(Job.Queue.INGEST, 30), lambda: False])
    monkeypatch.setattr(wakeups, "listen", lambda *_: next(listens)())

    def work() -> None:
        try:
            tasks.ingest_queued()
        finally:
            connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    wait_until(lambda: redis_client.info("clients")["blocked_clients"] == 1, 10)
    accepted = cluster.accept(content_of(1))
    worker.join()
    accepted.job.refresh_from_db()
    assert accepted.job.state == Job.State.SUCCEEDED
    assert messages == []


def test_sweep_probe_and_reclaim_are_tasks(cluster: ClusterUnderTest) -> None:
    tasks.sweep_once()
    tasks.probe_once()
    tasks.reclaim_once()
    assert not Job.objects.exclude(state__in=Job.TERMINAL).exists()


def test_a_round_of_reclaim_goes_on_while_passes_are_full(
    cluster: ClusterUnderTest, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients may delete more chunks in half a minute than one pass may remove."""
    settings.OCC = dataclasses.replace(settings.OCC, reclaim_grace=0)
    monkeypatch.setattr(reclaim, "CHUNKS_PER_PASS", 2)
    catalogue.delete(cluster.upload(content_of(7)))
    tasks.reclaim_once()
    assert not Chunk.objects.exists()
    assert not list(cluster.configuration.nodes_dir.glob("*/chunks/*/*"))
