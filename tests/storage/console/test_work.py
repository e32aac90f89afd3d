"""The pages of jobs."""

from __future__ import annotations

from datetime import timedelta

from storage.models import Job
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.console import Browser, Page, seen


def test_jobs_are_listed_with_uploads_apart_from_maintenance(workers: ClusterUnderTest, page: Page) -> None:
    workers.upload(b"x", "file.bin")
    Job.request(Job.Kind.AUDIT, "node_003")
    failed = Job.request(Job.Kind.DRAIN, "node_004")
    Job.objects.filter(pk=failed.pk).update(state="failed", error={"title": "No room", "detail": "the disks are full"})
    assert "Store “ file.bin ” Done" in seen(page("/console/jobs"))
    text = seen(page("/console/jobs?work=maintenance"))
    assert "Read and check everything on a node node_003 Waiting" in text
    assert "The disks are full." in text
    assert "No room. The disks are full." in seen(page(f"/console/jobs/{failed.pk}"))
    page("/console/jobs/nothing", 404)


def test_the_api_lists_jobs_page_by_page(workers: ClusterUnderTest) -> None:
    ids = [str(Job.request(Job.Kind.AUDIT, f"node_00{number}").pk) for number in range(5)][::-1]
    found, address = [], "/jobs?limit=2&work=maintenance&state=queued"
    while address:
        answer = Browser().get(address).json()
        found += [job["id"] for job in answer["jobs"]]
        address = (answer["next"] or "").removeprefix("http://testserver")
    assert found == ids
    for query in ("work=x", "state=x", "limit=0", "cursor=x", "cursor=MjAyNi0wMS0wMSB4", "other=1"):
        assert Browser().get(f"/jobs?{query}").status_code == 400, query


def test_a_job_is_cancelled_and_tried_again(cluster: ClusterUnderTest) -> None:
    browser = Browser()
    job = Job.request(Job.Kind.AUDIT, "node_003")
    assert "Cancel…" in browser.open("/console/jobs?work=maintenance")
    assert "What is done stays done" in browser.open(f"/console/jobs/{job.pk}/cancel")
    answer = browser.submit(f"/console/jobs/{job.pk}/cancel")
    assert "Cancelled" in browser.open(answer.headers["Location"])
    browser.open(f"/console/jobs/{job.pk}/retry")
    again = browser.submit(f"/console/jobs/{job.pk}/retry").headers["Location"]
    assert str(job.pk) not in again
    assert "Waiting" in browser.open(again)
    browser.submit(f"/console/jobs/{job.pk}/cancel")
    assert "the job is cancelled" in browser.open(f"/console/jobs/{job.pk}")
    browser.open(f"/console/jobs/{job.pk}/explode", 404)
    browser.open("/console/jobs/nothing/cancel", 404)


def test_an_upload_that_is_stored_shows_its_rate(cluster: ClusterUnderTest) -> None:
    cluster.accept(content_of(8))
    job = Job.objects.get()
    (claimed,) = Job.objects.claim(Job.Queue.INGEST, most=1, most_bytes=1)
    claimed.progress(done=4, total=8)
    Job.objects.update(started_at=job.created_at - timedelta(seconds=10))
    text = seen(Browser().open(f"/console/jobs/{job.pk}"))
    assert "50 %" in text
    assert "/s" in text
