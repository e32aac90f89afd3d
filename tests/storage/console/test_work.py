"""The pages of jobs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from storage.models import File, Job, Scope
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.console import Browser, Page, seen
from tests.support.keys import bearer


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


def test_a_list_of_jobs_names_the_files_of_the_user_in_one_query(
    workers: ClusterUnderTest, django_assert_num_queries: Any
) -> None:
    """An earlier version of the page asked the API once for each job."""

    def names() -> list[str]:
        return [job["file_name"] for job in Browser().get("/jobs").json()["jobs"]]

    workers.upload(b"0", "0.bin")
    with django_assert_num_queries(2):
        assert names() == ["0.bin"]
    for number in range(1, 12):
        workers.upload(f"{number}".encode(), f"{number}.bin")
    workers.upload(b"0", "newer.bin")
    File.objects.get(name="5.bin").delete()
    Job.request(Job.Kind.AUDIT, "node_003")
    with django_assert_num_queries(2):
        found = names()
    assert found == [
        None,
        "newer.bin",
        *(f"{number}.bin" if number != 5 else None for number in range(11, 0, -1)),
        "newer.bin",
    ]
    assert "Store “ newer.bin ” Done" in seen(Browser().open("/console/jobs"))


def test_an_admin_has_no_names_of_the_files_of_others(workers: ClusterUnderTest, keys_on: ClusterUnderTest) -> None:
    workers.upload(b"x", "of nobody.bin")
    (job,) = Browser().get("/jobs", headers=bearer("root", Scope)).json()["jobs"]
    assert (job["kind"], job["file_name"]) == ("ingest", None)
