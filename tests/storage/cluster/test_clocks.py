"""Clocks that are set back or forward: no work waits until a clock shows the former time again."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from storage.cluster import clocks
from storage.jobs import stillness
from storage.models import Chunk, Cluster, Content, Job, Node, Upload, nobody, segment
from storage.models.clock import Clock
from storage.models.job_queue import LEASE
from storage.redis_connection import connect
from storage.services import intake, sweep
from storage.tasks import look_for_uploads
from tests.support.cluster import ClusterUnderTest, content_of

HOUR = timedelta(hours=1)  # PostgreSQL's clock was set back by this much.


def test_a_lease_from_before_the_clock_was_set_back_is_over(cluster: ClusterUnderTest) -> None:
    Job.request(Job.Kind.REFRESH_HEALTH, "all")
    (job,) = Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)
    assert Job.objects.requeue_stale() == 0, "its lease has only begun"
    Job.objects.update(lease_expires_at=Clock() + HOUR + LEASE)
    assert Job.objects.requeue_stale() == 1
    assert Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0) == [job]


def test_a_job_that_was_to_wait_some_seconds_does_not_wait_for_an_hour(cluster: ClusterUnderTest) -> None:
    accepted = cluster.accept(content_of(1))
    Job.objects.update(not_before=Clock() + timedelta(seconds=30))
    assert not Job.objects.queued(Job.Queue.INGEST).exists()
    Job.objects.update(not_before=Clock() + HOUR)
    look_for_uploads()
    accepted.job.refresh_from_db()
    assert accepted.job.state == Job.State.SUCCEEDED


def test_a_segment_of_a_dead_worker_is_taken_over(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SEGMENT_BYTES", 8192)
    monkeypatch.setattr(intake, "HELD_BYTES", 0)
    accepted = cluster.accept(content_of(6))
    (claimed,) = Job.objects.claim_segment(accepted.upload)
    assert claimed.kind == Job.Kind.INGEST_SEGMENT
    Job.objects.filter(pk=claimed.pk).update(lease_expires_at=Clock() + HOUR)
    cluster.ingest()
    accepted.job.refresh_from_db()
    assert accepted.job.state == Job.State.SUCCEEDED


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_an_upload_under_way_is_not_silent_because_a_clock_was_set(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch, step: timedelta
) -> None:
    monkeypatch.setattr(intake, "HELD_BYTES", 0)
    with intake.Reception(nobody(), declared_size=100) as reception:
        reception.write(b"some")
        sweep.sweep()
        Upload.objects.update(heartbeat_at=Clock() + step)
        sweep.sweep()
        assert Upload.objects.exists()
        now = time.monotonic()
        monkeypatch.setattr(stillness, "monotonic", lambda: now + 3600)
        sweep.sweep()
        assert not Upload.objects.exists(), "an hour of silence is one"


def test_the_grace_of_a_condemned_chunk_begins_again(cluster: ClusterUnderTest) -> None:
    Chunk.objects.condemn_orphans({"ab" * 32: 4096, "cd" * 32: 4096})
    Chunk.objects.filter(hash="ab" * 32).update(condemned_at=Clock() + HOUR)
    before = Chunk.objects.get(hash="cd" * 32).condemned_at
    sweep.sweep()
    assert Chunk.objects.filter(condemned_at__lte=Clock()).count() == 2
    assert Chunk.objects.get(hash="cd" * 32).condemned_at == before


def test_a_repair_is_tried_again_after_a_minute_and_not_after_an_hour(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(1))
    Content.objects.update(min_replication=2, health_epoch=Cluster.load().topology_epoch)
    sweep.sweep()
    assert Job.objects.filter(kind=Job.Kind.REBALANCE).count() == 1
    Job.objects.filter(kind=Job.Kind.REBALANCE).update(state=Job.State.SUCCEEDED, finished_at=Clock())
    sweep.sweep()
    assert Job.objects.filter(kind=Job.Kind.REBALANCE).count() == 1, "it was tried just now"
    Job.objects.filter(kind=Job.Kind.REBALANCE).update(finished_at=Clock() + HOUR)
    sweep.sweep()
    assert Job.objects.filter(kind=Job.Kind.REBALANCE).count() == 2


def test_a_node_that_went_before_the_clock_was_set_back_is_not_new_for_ever(cluster: ClusterUnderTest) -> None:
    Node.objects.filter(node_id="node_000").update(online_changed_at=Clock() + HOUR)
    sweep.sweep()
    assert Node.objects.filter(node_id="node_000", online_changed_at__lte=Clock()).exists()


def test_a_clock_that_is_off_is_shown_until_it_agrees(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert abs(clocks.difference()) < clocks.TOLERATED
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    assert -3601 < clocks.difference() < -3599
    clocks.report("a worker")
    monkeypatch.undo()
    assert -3601 < clocks.differences()["a worker"] < -3599
    clocks.report("a worker")
    assert clocks.differences() == {}
    assert not connect().exists(clocks.KEY)
