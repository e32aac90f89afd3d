"""Jobs are cancelled and tried again by those who may see them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from storage.exceptions import NotPossible
from storage.jobs import wakeups
from storage.models import Chunk, Content, File, Job, Node, Upload
from storage.services import cancel
from tests.support.api import WholeClient as Client
from tests.support.api import assert_nothing_left, assert_problem, workers
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.keys import bearer, keys_on

__all__ = ["keys_on", "workers"]

DATA = content_of(3)
LATER = {"Prefer": "respond-async"}


def put(headers: dict[str, str] | None = None, data: bytes = DATA) -> str:
    answer = Client().put(
        "/upload/file.bin", data, content_type="application/octet-stream", headers={**LATER, **(headers or {})}
    )
    assert answer.status_code == 202, answer.content
    job: str = answer.json()["job"]
    return job


def test_a_cancelled_upload_leaves_nothing(cluster: ClusterUnderTest) -> None:
    job = put()
    assert Client().post(f"/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert_nothing_left(cluster)
    assert "the job is cancelled" in assert_problem(Client().post(f"/jobs/{job}/cancel"), 409)["detail"]
    assert "gone" in assert_problem(Client().post(f"/jobs/{job}/retry"), 409)["detail"]
    cluster.ingest()
    assert_nothing_left(cluster)


def test_a_cancelled_upload_leaves_the_file_that_was_there(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(DATA, "file.bin")
    job = put()
    Client().post(f"/jobs/{job}/cancel")
    assert File.objects.get().pk == file.pk
    assert cluster.download(file) == DATA
    assert (Upload.objects.count(), cluster.staged()) == (0, [])
    assert not Chunk.objects.exclude(condemned_at=None).exists()


def test_an_upload_that_is_stored_meanwhile_is_not_cancelled(cluster: ClusterUnderTest) -> None:
    job = put()
    cluster.ingest()
    assert "succeeded" in assert_problem(Client().post(f"/jobs/{job}/cancel"), 409)["detail"]
    assert Content.objects.get().state == Content.State.READY


def test_a_resumable_upload_is_cancelled_while_it_is_stored(cluster: ClusterUnderTest) -> None:
    begun = Client().post(
        "/uploads/",
        DATA,
        content_type="application/offset+octet-stream",
        headers={"Tus-Resumable": "1.0.0", "Upload-Length": str(len(DATA))},
    )
    assert begun.status_code == 201, begun.content
    job = Job.objects.get(kind=Job.Kind.INGEST)
    Client().post(f"/jobs/{job.pk}/cancel")
    cluster.ingest()
    assert_nothing_left(cluster)
    shown = Client().get(begun.headers["Location"], headers={"Accept": "application/json"})
    assert shown.json()["stage"] == "failed"


def test_a_part_of_an_upload_is_not_cancelled_alone(cluster: ClusterUnderTest) -> None:
    with pytest.raises(NotPossible, match="cancel the upload"):
        cancel.cancel(Job(kind=Job.Kind.INGEST_SEGMENT))


def test_a_failed_upload_is_stored_by_a_retry(cluster: ClusterUnderTest) -> None:
    job = put()
    Job.objects.filter(pk=job).update(state="failed", attempts=5, error={"title": "Failed", "detail": "why"})
    answer = Client().post(f"/jobs/{job}/retry")
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/jobs/{job}")
    shown = answer.json()
    assert (shown["state"], shown["error"], shown["attempts"]) == ("queued", None, 0)
    cluster.ingest()
    assert Client().get(f"/jobs/{job}").json()["state"] == "succeeded"
    assert cluster.download(File.objects.get()) == DATA
    assert "succeeded" in assert_problem(Client().post(f"/jobs/{job}/retry"), 409)["detail"]


def test_maintenance_is_cancelled_and_asked_for_again(cluster: ClusterUnderTest) -> None:
    cluster.upload(DATA)
    drain = Client().post("/nodes/node_004/drain").json()["id"]
    Client().post(f"/jobs/{drain}/cancel")
    assert Node.objects.get(node_id="node_004").state == "active"
    assert "drain it" in assert_problem(Client().post(f"/jobs/{drain}/retry"), 409)["detail"]
    audit = Client().post("/nodes/node_004/audit").json()["id"]
    Client().post(f"/jobs/{audit}/cancel")
    again = Client().post(f"/jobs/{audit}/retry").json()["id"]
    assert again != audit
    assert Client().post(f"/jobs/{audit}/retry").json()["id"] == again, "a queued job is enough"


def test_a_failed_drain_goes_on(cluster: ClusterUnderTest) -> None:
    cluster.upload(DATA)
    drain = Client().post("/nodes/node_004/drain").json()["id"]
    Job.objects.filter(pk=drain).update(state="failed")
    assert Client().post(f"/jobs/{drain}/retry").status_code == 202
    cluster.maintain()
    assert Node.objects.get(node_id="node_004").state == "retired"


def test_jobs_of_others_are_not_there(cluster: ClusterUnderTest, keys_on: ClusterUnderTest) -> None:
    ann, ben = bearer("ann"), bearer("ben")
    job = put(ann)
    maintenance = Job.request(Job.Kind.AUDIT, "node_000")
    for verb in ("cancel", "retry"):
        for each in (job, maintenance.pk, uuid.uuid4(), "nothing"):
            assert_problem(Client().post(f"/jobs/{each}/{verb}", headers=ben), 404)
    assert Client().post(f"/jobs/{job}/cancel", headers=ann).status_code == 200


def test_a_client_that_waits_is_told_that_its_upload_was_cancelled(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wake(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(wakeups, "wake", lambda *_, **__: None)
        cancel.cancel(Job.objects.get())

    monkeypatch.setattr(wakeups, "wake", wake)
    answer = Client().put("/upload/file.bin", DATA, content_type="application/octet-stream")
    assert assert_problem(answer, 503)["code"] == "ingest_failed"
    assert_nothing_left(cluster)
