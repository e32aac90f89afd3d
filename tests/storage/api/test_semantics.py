"""An address, a condition or a preference means the same for every endpoint."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from storage.api.http import preconditions
from storage.exceptions import ClusterUnavailable, JobFailed
from storage.jobs import waiting, wakeups
from storage.models import File, Job
from storage.models.clock import Clock
from storage.services import cancel, verify
from tests.support.api import WholeClient, assert_problem
from tests.support.cluster import ClusterUnderTest, content_of

HASH = "0" * 64

# -- slashes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/files/", "/files"),
        ("/health/", "/health"),
        ("/status//", "/status"),
        ("/upload/", "/upload"),
        ("/admin", "/admin/"),
        ("/admin//", "/admin/"),
        (f"/files/{HASH}/", f"/files/{HASH}"),
        (f"/download/{HASH}/", f"/download/{HASH}"),
        ("/files/?limit=3&cursor=a%20b", "/files?limit=3&cursor=a%20b"),
    ],
)
def test_a_slash_too_many_or_too_few_leads_to_what_is_meant(path: str, meant: str) -> None:
    for method, status in (("GET", 301), ("HEAD", 301), ("POST", 308), ("DELETE", 308)):
        response = Client().generic(method, path)
        assert (response.status_code, response.headers["Location"]) == (status, meant)


def test_no_slash_leads_to_another_host() -> None:
    for path in ("//evil.example/", "//evil.example/files/", "/\\evil.example/"):
        response = Client().get("/", PATH_INFO=path)
        assert response.status_code == 404 or response.headers["Location"].startswith("/%2F"), response.headers


# -- the query ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/?x=1"),
        ("GET", "/health?x=1"),
        ("GET", "/status?x=1"),
        ("GET", "/files?limits=1"),
        ("POST", "/upload?replication=2"),
        ("PUT", "/upload/a.txt?replication=2"),
        ("GET", f"/files/{HASH}?x="),
        ("PATCH", f"/files/{HASH}?x="),
        ("DELETE", f"/files/{HASH}?x="),
        ("GET", f"/download/{HASH}?x"),
        ("GET", f"/download/{HASH}/name.txt?x=1"),
        ("GET", f"/verify/{HASH}?depp=true"),
        ("GET", f"/route/{HASH}?x=1"),
        ("POST", f"/rebalance/{HASH}?x=1"),
        ("GET", f"/jobs/{uuid.UUID(int=1)}?x=1"),
    ],
)
def test_a_parameter_that_is_not_known_is_named(cluster: ClusterUnderTest, method: str, path: str) -> None:
    body = assert_problem(Client().generic(method, path, b"x", "application/octet-stream"), 400)
    if path == f"/download/{HASH}?x":
        return  # The parameter has no value. Only the status is tested.
    name = path.partition("?")[2].partition("=")[0]
    assert name in body["errors"], body
    assert name in body["detail"]


# -- conditions --------------------------------------------------------------


@pytest.fixture
def file(cluster: ClusterUnderTest) -> File:
    found = cluster.upload(content_of(1), "first.txt")
    File.objects.update(modified_at=Clock() - timedelta(hours=1))
    return found


def path_of(file: File) -> str:
    return f"/files/{file.content.file_hash}"


def rename(file: File, name: str, **headers: str) -> Any:
    return Client().patch(path_of(file), {"file_name": name}, content_type="application/json", headers=headers)


def test_a_file_has_a_tag_and_a_date_that_change_with_what_its_owner_changes(file: File) -> None:
    before = Client().get(path_of(file))
    assert before.headers["ETag"] == Client().get(path_of(file)).headers["ETag"]
    renamed = rename(file, "second.txt")
    assert renamed.headers["ETag"] != before.headers["ETag"]
    assert renamed.headers["Last-Modified"] != before.headers["Last-Modified"]
    assert Client().get(path_of(file)).headers["ETag"] == renamed.headers["ETag"]


def test_of_two_renames_of_one_version_one_succeeds(file: File) -> None:
    tag = Client().get(path_of(file)).headers["ETag"]
    assert rename(file, "second.txt", If_Match=tag).status_code == 200
    assert_problem(rename(file, "third.txt", If_Match=tag), 412)
    assert File.objects.get().name == "second.txt"


def test_a_deletion_of_another_version_is_refused(file: File) -> None:
    tag = Client().get(path_of(file)).headers["ETag"]
    date = Client().get(path_of(file)).headers["Last-Modified"]
    rename(file, "second.txt")
    for headers in ({"If-Match": tag}, {"If-Match": '"other"'}, {"If-Unmodified-Since": date}):
        assert_problem(Client().delete(path_of(file), headers=headers), 412)
    assert File.objects.exists()
    bytes_tag = Client().get(f"/download/{file.content.file_hash}").headers["ETag"]
    assert Client().delete(path_of(file), headers={"If-Match": bytes_tag}).status_code == 204


@pytest.mark.parametrize("matching", ["*", "tag", "date"])
def test_a_deletion_of_this_version_is_carried_out(file: File, matching: str) -> None:
    shown = Client().get(path_of(file))
    headers = {
        "*": {"If-Match": "*"},
        "tag": {"If-Match": shown.headers["ETag"]},
        "date": {"If-Unmodified-Since": shown.headers["Last-Modified"]},
    }[matching]
    assert Client().delete(path_of(file), headers=headers).status_code == 204


def test_a_condition_is_looked_at_again_when_the_row_is_locked(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another client renames the file after the condition was checked for the first time."""
    tag = Client().get(path_of(file)).headers["ETag"]
    require, looks = preconditions.require, []

    def look(*arguments: Any) -> None:
        require(*arguments)
        looks.append(arguments)
        if len(looks) == 1:
            File.objects.update(name="changed meanwhile.txt")

    monkeypatch.setattr(preconditions, "require", look)
    assert_problem(rename(file, "third.txt", If_Match=tag), 412)
    assert len(looks) == 1
    assert File.objects.get().name == "changed meanwhile.txt"


# -- preferences -------------------------------------------------------------


def upload(query: str = "", **headers: str) -> Any:
    file = SimpleUploadedFile("a.txt", b"some bytes")
    return Client().post(f"/upload{query}", {"file": file}, headers=headers)


@pytest.mark.parametrize(
    ("query", "headers", "is_told", "applied"),
    [
        ("", {}, True, None),
        ("?distribution=false", {}, False, None),
        ("?distribution=true", {"Prefer": "return=minimal"}, True, None),
        ("", {"Prefer": "return=minimal"}, False, "return=minimal"),
        ("", {"Prefer": 'Return="minimal"; foo, bar=1'}, False, "return=minimal"),
        ("", {"Prefer": "return=representation"}, True, None),
    ],
)
def test_the_distribution_is_left_out_for_who_does_not_want_it(
    workers: ClusterUnderTest, query: str, headers: dict[str, str], is_told: bool, applied: str | None
) -> None:
    response = upload(query, **headers)
    assert response.status_code == 201
    assert ("distribution" in response.json()) == is_told
    assert response.headers.get("Preference-Applied") == applied
    rebalanced = Client().post(f"/rebalance/{response.json()['file_hash']}{query}", headers=headers)
    assert rebalanced.status_code == 200
    assert ("new_distribution" in rebalanced.json()) == is_told


def test_the_volumes_are_not_asked_for_a_distribution_that_nobody_wants(
    workers: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_hash = upload().json()["file_hash"]
    monkeypatch.setattr(verify, "distribution", None)
    assert Client().post(f"/rebalance/{file_hash}?distribution=false").status_code == 200


@pytest.mark.parametrize(
    "content_type",
    ["x/y;a*=foo'en'%41", "x/y;a*=idna''%ff", "x/y;a*0*;a*=''x", "text/html;a*" + "9" * 5000 + "=1"],
)
def test_a_malformed_content_type_is_a_400(db: None, content_type: str) -> None:
    for path in ("/health", "/files", "/admin/login/", "/static/x"):
        response = WholeClient().generic("GET", path, headers={"Content-Type": content_type})
        assert_problem(response, 400, "Content-Type")


@pytest.mark.parametrize("charset", ["hex", "undefined", "rot13", "base64", "utf-16"])
def test_the_charset_of_a_body_says_nothing_about_the_query(db: None, charset: str) -> None:
    headers = {"Content-Type": f"text/plain; charset={charset}"}
    assert_problem(WholeClient().generic("GET", "/files?limit=x", headers=headers), 400, "limit")


def test_a_malformed_accept_is_a_406(db: None) -> None:
    assert_problem(WholeClient().get("/files", headers={"Accept": "x/y;a*0*;a*=''x"}), 406)


def test_a_distribution_is_wanted_or_not() -> None:
    assert_problem(upload("?distribution=perhaps"), 400, "distribution")


# -- jobs --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Job.Kind.REBALANCE, "the rebalance was cancelled"), (Job.Kind.INGEST, "the upload was cancelled")],
)
def test_a_job_that_was_cancelled_names_itself(kind: str, said: str) -> None:
    with pytest.raises(JobFailed, match=said):
        waiting.raise_for(Job(kind=kind, state=Job.State.CANCELLED))


@pytest.mark.parametrize("lack", ["", Job.Lack.NODES])
def test_a_rebalance_that_is_cancelled_while_its_client_waits_says_so(
    workers: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    """The rebalance is cancelled while its job runs, and while its job waits for nodes."""
    file_hash = upload().json()["file_hash"]

    def wake(queue: Job.Queue, **_: object) -> None:
        (job,) = Job.objects.claim(queue, most=1, most_bytes=0)
        if lack:
            job.wait(Job.Lack(lack))
        cancel.cancel(job)

    monkeypatch.setattr(wakeups, "wake", wake)
    problem = assert_problem(Client().post(f"/rebalance/{file_hash}"), 503)
    assert (problem["code"], problem["detail"]) == ("job_failed", "the rebalance was cancelled")


def test_a_job_that_waits_says_what_it_is_and_what_it_lacks() -> None:
    job = Job(kind=Job.Kind.REBALANCE, state=Job.State.QUEUED, waiting_for=Job.Lack.NODES)
    with pytest.raises(ClusterUnavailable, match="the rebalance lacks nodes"):
        waiting.raise_for(job)
