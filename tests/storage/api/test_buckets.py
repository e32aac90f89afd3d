"""Buckets and their objects at the API: list, download and delete them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client

from storage.accounts import keys
from storage.api.wsgi import transfers
from storage.models import Activity, Bucket, KeyLimit, Object, Properties, Scope
from storage.services import objects
from storage.services.objects import multipart
from tests.storage.api.metrics.test_metrics import grown
from tests.storage.api.test_ranges import parts_of
from tests.support.api import WholeClient, assert_problem
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.keys import bearer, keys_on, owner
from tests.support.metrics import scrape
from tests.support.objects import make_bucket, md5, once_found, put, put_part

__all__ = ["keys_on"]

HOSTILE = [
    "a/../b",
    "../../etc/passwd",
    "..",
    "a//b",
    "//",
    "/a",
    "folder/",
    "a%2Fb",
    "100%",
    "a?b#c&d=e+f",
    "a\nb\r\nc",
    "\u202efdp.exe",
    '"quoted"\\',
    "ünï/\U0001f40c\U0001f40c.txt",
    "x" * 1024,
    "\U0001f40c" * 256,
    "object",
]


def address(bucket: str, key: str) -> str:
    return f"/buckets/{bucket}/object?key={quote(key, safe='')}"


def body_of(response: Any) -> bytes:
    body: bytes = b"".join(response.streaming_content)
    assert response.headers["Content-Length"] == str(len(body))
    return body


@pytest.fixture
def in_parts(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Make an object of several parts, each of which has several chunks; return its bytes."""
    monkeypatch.setattr(multipart, "LEAST_PART", 1)

    def make(bucket: Bucket, key: str, parts: int = 3) -> bytes:
        upload = objects.begin_multipart(bucket, key, Properties())
        bodies = [content_of(2, str(number)) for number in range(parts)]
        chosen = [(number, put_part(cluster, upload, number, body).etag) for number, body in enumerate(bodies, 1)]
        objects.complete(bucket, key, upload.upload_id, chosen)
        return b"".join(bodies)

    return make


# -- lists -------------------------------------------------------------------


def test_buckets_are_listed_with_what_they_hold_page_by_page(cluster: ClusterUnderTest) -> None:
    for name in ("photos", "backups", "empty"):
        make_bucket(name)
    make_bucket("anns", owner("ann"))
    Bucket.objects.filter(name="photos").update(max_bytes=10_000, replication_factor=2)
    put(cluster, Bucket.objects.get(name="photos"), "a", b"12345")
    put(cluster, Bucket.objects.get(name="photos"), "b", b"678")
    first = Client().get("/buckets?limit=2").json()
    second = Client().get(first["next"]).json()
    assert [each["name"] for each in first["buckets"]] == ["backups", "empty"]
    assert second["next"] is None
    (photos,) = second["buckets"]
    assert datetime.fromisoformat(photos.pop("created_at")).tzinfo == UTC
    assert photos == {
        "name": "photos",
        "objects": 2,
        "bytes": 8,
        "quota": {"objects": None, "bytes": 10_000},
        "replication_factor": 2,
    }
    assert first["buckets"][0]["replication_factor"] == 3
    for query in ("limit=0", "cursor=x", "bucket=photos"):
        assert_problem(Client().get(f"/buckets?{query}"), 400)


def test_a_folder_of_a_bucket_is_listed_as_one_of_files(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket("photos")
    for key in ("2026/june/a", "2026/june/b", "2026/x", "2026/y", "2027/a", "2026//z", "b", "a"):
        put(cluster, bucket, key, b"x")

    def listed(address: str) -> tuple[list[str], list[str], str | None]:
        found = Client().get(address).json()
        return found["folders"], [entry["file_name"] for entry in found["files"]], found["next"]

    assert listed("/files?bucket=photos&delimiter=/") == (["2026/", "2027/"], ["a", "b"], None)
    whole = ["2026//", "2026/june/"], ["2026/x", "2026/y"]
    assert listed("/files?bucket=photos&delimiter=/&prefix=2026/") == (*whole, None)
    assert listed("/files?bucket=photos&delimiter=/&prefix=2026/j") == (["2026/june/"], [], None)
    assert listed("/files?bucket=photos&delimiter=/&prefix=none/") == ([], [], None)
    folders: list[str] = []
    files: list[str] = []
    following: str | None = "/files?bucket=photos&delimiter=/&prefix=2026/&limit=1"
    while following:
        more, others, following = listed(following)
        assert len(more) + len(others) == 1
        folders, files = folders + more, files + others
    assert (folders, files) == whole
    assert "folders" not in Client().get("/files?bucket=photos").json()
    assert_problem(Client().get("/files?bucket=photos&delimiter=x"), 400, "delimiter")
    cursor_of_files = Client().get("/files?limit=1&delimiter=/").json()["next"]
    assert cursor_of_files is None


def test_a_cursor_of_files_is_none_of_a_bucket(cluster: ClusterUnderTest) -> None:
    make_bucket("photos")
    for name in ("a", "b"):
        cluster.upload(name.encode(), name)
    cursor = Client().get("/files?limit=1&sort=file_name").json()["next"].partition("cursor=")[2]
    assert_problem(Client().get(f"/files?bucket=photos&cursor={cursor}"), 400, "cursor")


# -- downloads ---------------------------------------------------------------


def test_an_object_is_downloaded_as_a_file_is(cluster: ClusterUnderTest) -> None:
    data = content_of(3)
    put(cluster, make_bucket("photos"), "2026/page.html", data, Properties("text/html"))
    response = Client().get(address("photos", "2026/page.html"))
    assert body_of(response) == data
    assert response.headers["Content-Disposition"] == 'attachment; filename="page.html"'
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["ETag"] == f'"{md5(data)}"'
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert response.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    head = Client().head(address("photos", "2026/page.html"))
    assert (head.status_code, head.content) == (200, b"")
    for name in ("ETag", "Content-Length", "Last-Modified", "Repr-Digest", "Content-Disposition"):
        assert head.headers[name] == response.headers[name]


def test_ranges_cross_the_borders_of_parts(cluster: ClusterUnderTest, in_parts: Callable[..., bytes]) -> None:
    data = in_parts(make_bucket("photos"), "large")
    part = len(data) // 3
    where = address("photos", "large")
    whole = Client().get(where)
    assert body_of(whole) == data
    assert whole.headers["ETag"].endswith('-3"')
    assert "Repr-Digest" not in whole.headers
    edges = [0, 1, part - 1, part, part + 1, 2 * part - 1, 2 * part, len(data) - 1]
    for first in edges:
        for last in (edge for edge in edges if edge >= first):
            response = Client().get(where, headers={"Range": f"bytes={first}-{last}"})
            assert response.status_code == 206
            assert body_of(response) == data[first : last + 1]
            assert response.headers["Content-Range"] == f"bytes {first}-{last}/{len(data)}"
    slices = [(5, part + 5), (part + 10, part + 20), (2 * part - 1, 2 * part + 1)]
    response = Client().get(where, headers={"Range": "bytes=" + ",".join(f"{a}-{b - 1}" for a, b in slices)})
    assert parts_of(body_of(response), response.headers["Content-Type"]) == [
        (b"application/octet-stream", b"bytes %d-%d/%d" % (a, b - 1, len(data)), data[a:b]) for a, b in slices
    ]
    assert_problem(Client().get(where, headers={"Range": f"bytes={len(data)}-"}), 416)


def test_conditions_of_a_download(cluster: ClusterUnderTest) -> None:
    put(cluster, make_bucket("photos"), "key", b"old")
    tag = f'"{md5(b"old")}"'
    where = address("photos", "key")
    unchanged = Client().get(where, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.headers["ETag"]) == (304, tag)
    put(cluster, Bucket.objects.get(), "key", b"newer")
    assert body_of(Client().get(where, headers={"If-None-Match": tag})) == b"newer"
    assert_problem(Client().get(where, headers={"If-Match": tag}), 412)
    assert body_of(Client().get(where, headers={"Range": "bytes=0-0", "If-Range": tag})) == b"newer"


def test_an_empty_object(cluster: ClusterUnderTest) -> None:
    put(cluster, make_bucket("photos"), "empty", b"")
    assert body_of(Client().get(address("photos", "empty"))) == b""
    assert Client().head(address("photos", "empty")).headers["Content-Length"] == "0"


@pytest.mark.parametrize("key", HOSTILE)
def test_keys_of_every_kind(cluster: ClusterUnderTest, key: str) -> None:
    bucket = make_bucket("photos")
    put(cluster, bucket, key, b"it")
    put(cluster, bucket, "other", b"other")
    found = Client().get("/files?bucket=photos&delimiter=/").json()
    assert len(found["files"]) + len(found["folders"]) == 2
    response = WholeClient().get(address("photos", key))
    assert body_of(response) == b"it"
    disposition = response.headers["Content-Disposition"]
    assert disposition.startswith("attachment; filename=")
    assert disposition.isascii()
    assert disposition.isprintable()
    assert len(disposition) < 4096
    assert WholeClient().delete(address("photos", key)).status_code == 204
    assert list(Object.objects.values_list("key", flat=True)) == ["other"]


@pytest.mark.parametrize("key", ["", "%00", "%FF", "%ED%A0%80", "x" * 1025, "%F0%9F%90%8C" * 257])
def test_what_can_be_no_key_is_refused(cluster: ClusterUnderTest, key: str) -> None:
    make_bucket("photos")
    for method in ("get", "delete"):
        answer = assert_problem(getattr(Client(), method)(f"/buckets/photos/object?key={key}"), 400)
        assert answer["code"] == "invalid_object_key"
    assert_problem(Client().get("/buckets/photos/object"), 400)
    assert_problem(Client().get("/buckets/photos/object?key=a&prefix=b"), 400, "prefix")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("2026/beach.jpg", "beach.jpg"),
        ("folder/", "folder"),
        ("a/..", md5(b"it")),
        ("//", md5(b"it")),
        ("a\nb", "a_b"),
        (f"{'x' * 300}.jpg", f"{'x' * 251}.jpg"),
    ],
)
def test_an_object_is_saved_under_the_end_of_its_key(cluster: ClusterUnderTest, key: str, name: str) -> None:
    put(cluster, make_bucket("photos"), key, b"it")
    disposition = Client().head(address("photos", key)).headers["Content-Disposition"]
    assert disposition.partition(";")[2].startswith(f' filename="{name}"')


def test_a_download_of_an_object_is_a_transfer_and_is_counted(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cluster, make_bucket("photos"), "key", b"bytes")
    slots = BoundedSemaphore(1)
    monkeypatch.setattr(transfers, "_slots", slots)
    before = scrape()
    open_one = WholeClient().get(address("photos", "key"))
    assert_problem(WholeClient().get(address("photos", "key")), 503)
    body_of(open_one)
    assert body_of(WholeClient().get(address("photos", "key"))) == b"bytes"
    WholeClient().delete(address("photos", "key"))
    after = scrape()
    assert grown(before, after, "occ_http_requests_total", route="/buckets/*", method="GET", status="2xx") == 2
    assert grown(before, after, "occ_http_sent_bytes_total", route="/buckets/*") > 10
    assert grown(before, after, "occ_download_wait_seconds_count") == 3, "the refusal counts, and the deletion does not"


# -- deletions ---------------------------------------------------------------


def test_an_object_is_deleted(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket("photos")
    put(cluster, bucket, "key", b"bytes")
    where = address("photos", "key")
    assert_problem(Client().delete(where, headers={"If-Match": '"other"'}), 412)
    assert Client().delete(where, headers={"If-Match": f'"{md5(b"bytes")}"'}).status_code == 204
    for method in ("get", "head", "delete"):
        answer = getattr(Client(), method)(where)
        assert answer.status_code == 404
    assert assert_problem(Client().delete(where), 404)["code"] == "no_such_object"
    assert [(act.action, act.subject) for act in Activity.objects.all()] == [("delete", "photos/key")]


# -- owners and scopes -------------------------------------------------------


def test_owners_learn_nothing_of_the_buckets_of_others(keys_on: ClusterUnderTest) -> None:
    put(keys_on, make_bucket("anns", owner("ann")), "key", b"bytes")
    ann, ben, admin = bearer("ann"), bearer("ben"), bearer("root", Scope)
    assert body_of(WholeClient().get(address("anns", "key"), headers=ann)) == b"bytes"
    assert [each["name"] for each in WholeClient().get("/buckets", headers=ann).json()["buckets"]] == ["anns"]
    for other in (ben, admin):
        assert WholeClient().get("/buckets", headers=other).json() == {"buckets": [], "next": None}
        for where in ("/files?bucket={}", "/buckets/{}/object?key=key", "/buckets/{}/object?key=none"):
            theirs, none = (WholeClient().get(where.format(name), headers=other) for name in ("anns", "none"))
            assert_problem(theirs, 404)
            assert theirs.content.replace(b"anns", b"none")[:-60] == none.content[:-60]
        assert_problem(WholeClient().delete(address("anns", "key"), headers=other), 404)
    assert_problem(WholeClient().get(address("anns", "key")), 401)
    assert Object.objects.count() == 1


def test_scopes_are_those_of_files(keys_on: ClusterUnderTest) -> None:
    put(keys_on, make_bucket("anns", owner("ann")), "key", b"bytes")
    where = address("anns", "key")
    for scope in (Scope.READ, Scope.WRITE, Scope.DELETE):
        headers = bearer("ann", [scope])
        for path in ("/buckets", "/files?bucket=anns", where):
            response = WholeClient().get(path, headers=headers)
            assert response.status_code == (200 if scope == Scope.READ else 403)
            response.close()
        if scope != Scope.DELETE:
            assert_problem(WholeClient().delete(where, headers=headers), 403)
    assert WholeClient().delete(where, headers=bearer("ann", [Scope.DELETE])).status_code == 204


def test_a_key_for_a_bucket_opens_the_s3_door_alone(keys_on: ClusterUnderTest) -> None:
    put(keys_on, make_bucket("anns", owner("ann")), "in/1", b"bytes")
    new = keys.create(owner("ann"), scopes=tuple(Scope), limit=KeyLimit("anns", "in/"))
    headers = {"Authorization": f"Bearer {new.key.pk}:{new.secret}"}
    for path in ("/buckets", "/files?bucket=anns&prefix=in/", address("anns", "in/1"), address("anns", "out")):
        assert_problem(WholeClient().get(path, headers=headers), 403)
    assert_problem(WholeClient().delete(address("anns", "in/1"), headers=headers), 403)
    assert Object.objects.count() == 1


def test_a_bucket_with_a_nul_is_none(cluster: ClusterUnderTest) -> None:
    for method in ("get", "delete"):
        assert_problem(getattr(Client(), method)("/buckets/a%00b/object?key=key"), 404)


@pytest.mark.parametrize("change", ["overwritten", "deleted"])
def test_a_download_finds_the_object_again_if_it_changes_once_it_was_found(
    cluster: ClusterUnderTest, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.models.statements.open_content.HEAD", 2)
    bucket, new = make_bucket("bucket"), content_of(4, "new")
    put(cluster, bucket, "key", content_of(5))
    if change == "overwritten":
        once_found(monkeypatch, lambda: put(cluster, bucket, "key", new))
        response = WholeClient().get(address("bucket", "key"))
        assert response.status_code == 200, "an object was there all the time"
        assert body_of(response) == new
    else:
        once_found(monkeypatch, lambda: objects.delete(bucket, "key"))
        assert_problem(WholeClient().get(address("bucket", "key")), 404)
