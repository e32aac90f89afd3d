from __future__ import annotations

import pytest
from django.db import transaction

from storage.jobs import maintenance, wakeups
from storage.models import Job
from tests.support.cluster import ClusterUnderTest


def test_a_worker_is_woken_for_one_open_job_once_it_is_committed(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[Job.Queue] = []
    monkeypatch.setattr(wakeups, "wake", woken.append)
    with transaction.atomic():
        job = maintenance.ensure(Job.Kind.AUDIT, "node_000")
        assert not woken, "a worker that looks before the commit finds nothing"
    assert woken == [Job.Queue.MAINTENANCE]
    Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)
    assert maintenance.ensure(Job.Kind.AUDIT, "node_000") == job, "a running job does it whole"
