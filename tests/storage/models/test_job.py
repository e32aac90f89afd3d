from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection

from storage.exceptions import LeaseLost, TurnEnded
from storage.models import Job
from storage.models.clock import Clock
from storage.models.job_queue import LEASE, MAX_ATTEMPTS
from tests.support.cluster import ClusterUnderTest


def queued(count: int, size: int = 10) -> list[Job]:
    return [Job.objects.create(kind=Job.Kind.INGEST, queue=Job.Queue.INGEST, size=size) for _ in range(count)]


def claim(most: int = 10, most_bytes: int = 1000) -> list[Job]:
    return Job.objects.claim(Job.Queue.INGEST, most=most, most_bytes=most_bytes)


def outlive_lease(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(lease_expires_at=Clock() - timedelta(seconds=1))


@pytest.mark.django_db
def test_a_claim_takes_the_oldest_up_to_a_number_and_a_size() -> None:
    jobs = queued(5, size=10)
    assert [job.pk for job in claim(most=2)] == [job.pk for job in jobs[:2]]
    assert [job.pk for job in claim(most_bytes=25)] == [job.pk for job in jobs[2:4]]


@pytest.mark.django_db
def test_a_job_larger_than_any_batch_is_claimed_alone() -> None:
    large, _ = queued(1, size=10**9), queued(1)
    assert [job.pk for job in claim()] == [large[0].pk]


@pytest.mark.django_db
def test_a_job_that_failed_before_is_claimed_alone() -> None:
    """RACES 28: a job that fails every time must not cost the other jobs of its batch an attempt."""
    jobs = queued(3)
    Job.objects.filter(pk=jobs[1].pk).update(attempts=1)
    assert [job.pk for job in claim()] == [jobs[0].pk]
    assert [job.pk for job in claim()] == [jobs[1].pk]
    assert [job.pk for job in claim()] == [jobs[2].pk]


def test_two_workers_never_claim_one_job(cluster: ClusterUnderTest) -> None:
    jobs = queued(40)
    claimed: list[list[Job]] = []

    def work() -> None:
        try:
            while found := claim(most=3):
                claimed.append(found)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A claim skips rows that another claim has locked at that moment, so some jobs may be left.
    claimed.append(claim(most=40))
    ids = [job.pk for found in claimed for job in found]
    assert len(ids) == len(set(ids)) == len(jobs)


@pytest.mark.django_db
def test_a_stale_job_goes_back_and_its_former_worker_can_commit_nothing() -> None:
    """Invariant 6: every commit of a worker checks its fencing token."""
    queued(1)
    zombie = claim()[0]
    outlive_lease(zombie)
    assert Job.objects.requeue_stale() == 1
    successor = claim()[0]
    assert successor.fence > zombie.fence
    attempts: list[Callable[[], None]] = [
        lambda: zombie.succeed({}),
        lambda: zombie.fail("x", "y"),
        lambda: zombie.retry("x", "y"),
        lambda: zombie.wait(Job.Lack.NODES),
        zombie.progress,
    ]
    for attempt in attempts:
        with pytest.raises(LeaseLost):
            attempt()
    assert Job.objects.heartbeat({zombie: 1}) == set()
    assert Job.objects.heartbeat({successor: 1}) == {successor.pk}
    successor.succeed({"fine": True})
    assert Job.objects.get(pk=zombie.pk).state == Job.State.SUCCEEDED


@pytest.mark.django_db
def test_progress_extends_the_lease() -> None:
    queued(1)
    job = claim()[0]
    Job.objects.update(lease_expires_at=Clock() + timedelta(seconds=1))
    job.progress(done=3, total=9)
    job.refresh_from_db()
    assert (job.done, job.total) == (3, 9)
    assert job.lease_expires_at is not None
    assert job.heartbeat_at is not None
    assert job.lease_expires_at - job.heartbeat_at > LEASE - timedelta(seconds=1)


@pytest.mark.django_db
def test_a_job_that_kills_its_workers_ends_failed() -> None:
    job = queued(1)[0]
    for _ in range(MAX_ATTEMPTS):
        outlive_lease(claim()[0])
        Job.objects.requeue_stale()
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert claim() == []


@pytest.mark.django_db
def test_retries_are_spaced_and_counted_waits_are_not() -> None:
    queued(1)
    claim()[0].retry("Failed", "for a test")
    assert claim() == [], "not before its delay"
    Job.objects.update(not_before=Clock())
    job = claim()[0]
    assert job.attempts == 2
    job.wait(Job.Lack.NODES, timedelta(0))
    job = claim()[0]
    assert (job.attempts, job.waiting_for) == (2, "")


@pytest.mark.django_db
def test_a_cancelled_job_stays_cancelled() -> None:
    queued(1)
    job = claim()[0]
    assert Job.cancel([job.pk]) == 1
    with pytest.raises(LeaseLost):
        job.progress()
    assert Job.cancel([job.pk]) == 0
    assert claim() == []


@pytest.mark.django_db
def test_requests_for_one_subject_coalesce_while_they_are_queued() -> None:
    first = Job.request(Job.Kind.REPAIR, "x")
    assert Job.request(Job.Kind.REPAIR, "x").pk == first.pk
    assert Job.request(Job.Kind.REPAIR, "y").pk != first.pk
    Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)
    assert Job.request(Job.Kind.REPAIR, "x").pk != first.pk, "the running one may have looked already"


@pytest.mark.django_db
def test_no_job_row_names_a_node_for_a_chunk() -> None:
    """RACES 29: jobs of chunks and contents have no column that could hold a node."""
    columns = {field.name for field in Job._meta.get_fields()}
    assert not {name for name in columns if "node" in name or "volume" in name}


@pytest.mark.django_db
def test_the_most_urgent_job_is_claimed_first_whatever_its_age() -> None:
    Job.request(Job.Kind.AUDIT, "node_000")
    Job.request(Job.Kind.REBALANCE_ALL, "cluster")
    Job.request(Job.Kind.REPAIR, "0" * 64)
    kinds = [Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)[0].kind for _ in range(3)]
    assert kinds == [Job.Kind.REPAIR, Job.Kind.REBALANCE_ALL, Job.Kind.AUDIT]


@pytest.mark.django_db
def test_a_long_job_goes_on_from_its_last_step_with_what_it_had_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.models.job.LOOK_AROUND", 0.0)
    Job.ensure(Job.Kind.AUDIT, "node_000")
    assert Job.ensure(Job.Kind.AUDIT, "node_000") == Job.objects.get()
    seen: list[int] = []

    def work(stop_after: int) -> None:
        (job,) = Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)
        job.result = job.result or {"seen": 0}
        for step in job.steps(6):
            seen.append(step)
            job.result["seen"] += 1
            if len(seen) == stop_after:
                Job.request(Job.Kind.REPAIR, "0" * 64)
        job.succeed(job.result)

    with pytest.raises(TurnEnded):
        work(stop_after=3)
    Job.objects.exclude(kind=Job.Kind.AUDIT).delete()
    Job.objects.filter(state=Job.State.RUNNING).get().end_turn()
    work(stop_after=99)
    job = Job.objects.get()
    assert (seen, job.result, job.done, job.total) == ([0, 1, 2, 3, 4, 5], {"seen": 6}, 6, 6)
