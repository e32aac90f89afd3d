"""Most requests need a key that allows the request. One owner learns nothing about the files of another."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import URLPattern, get_resolver

from storage.conf import VERSION
from storage.models import File, Job, Scope, nobody
from storage.services import catalogue
from tests.support.api import WholeClient as Client
from tests.support.api import assert_nothing_left, assert_problem, workers
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import bearer, keys_on, owner

__all__ = ["keys_on", "workers"]

DATA = b"bytes that both have"
HASH = hashlib.sha256(DATA).hexdigest()
UNKNOWN = hashlib.sha256(b"bytes that nobody has").hexdigest()
EVERY = tuple(Scope)


@pytest.fixture
def served(workers: ClusterUnderTest, keys_on: ClusterUnderTest) -> ClusterUnderTest:
    return workers


def put(headers: dict[str, str], name: str, data: bytes = DATA) -> Any:
    return Client().put(f"/upload/{name}", data, content_type="application/octet-stream", headers=headers)


REQUESTS: dict[tuple[str, str], Scope | tuple[Scope, ...]] = {
    ("GET", "/"): Scope.READ,
    ("GET", "/status"): Scope.ADMIN,
    ("GET", "/metrics"): Scope.ADMIN,
    ("GET", "/version"): Scope.READ,
    ("GET", f"/route/{HASH}"): Scope.ADMIN,
    ("GET", "/account"): Scope.READ,
    ("GET", "/files"): Scope.READ,
    ("GET", f"/files/{HASH}"): Scope.READ,
    ("PATCH", f"/files/{HASH}"): Scope.WRITE,
    ("DELETE", f"/files/{HASH}"): Scope.DELETE,
    ("POST", "/deletions/6f0c2f6e-0b3c-4c5e-9a53-2f0f6a1f3f57"): Scope.WRITE,
    ("GET", f"/files/{HASH}/links"): (Scope.READ, Scope.WRITE),
    ("POST", f"/files/{HASH}/links"): (Scope.READ, Scope.WRITE),
    ("DELETE", f"/files/{HASH}/links/6f0c2f6e-0b3c-4c5e-9a53-2f0f6a1f3f57"): (Scope.READ, Scope.WRITE),
    ("GET", f"/download/{HASH}"): Scope.READ,
    ("HEAD", f"/download/{HASH}/name.txt"): Scope.READ,
    ("GET", f"/verify/{HASH}"): Scope.READ,
    ("POST", f"/rebalance/{HASH}"): Scope.WRITE,
    ("POST", "/upload"): Scope.WRITE,
    ("PUT", "/upload/name.txt"): Scope.WRITE,
    ("GET", "/uploads/"): Scope.WRITE,
    ("POST", "/uploads"): Scope.WRITE,
    ("POST", "/uploads/"): Scope.WRITE,
    ("GET", "/uploads/6f0c2f6e-0b3c-4c5e-9a53-2f0f6a1f3f57"): Scope.WRITE,
    ("HEAD", "/uploads/6f0c2f6e-0b3c-4c5e-9a53-2f0f6a1f3f57"): Scope.WRITE,
    ("PATCH", "/uploads/6f0c2f6e-0b3c-4c5e-9a53-2f0f6a1f3f57"): Scope.WRITE,
    ("DELETE", "/uploads/6f0c2f6e-0b3c-4c5e-9a53-2f0f6a1f3f57"): Scope.WRITE,
    ("GET", "/jobs"): Scope.READ,
    ("GET", "/buckets"): Scope.READ,
    ("GET", "/buckets/photos/object"): Scope.READ,
    ("DELETE", "/buckets/photos/object"): Scope.DELETE,
    ("GET", "/jobs/6f0c2f6e-0b3c-4c5e-9a53-2f0f6a1f3f57"): Scope.READ,
    ("POST", "/jobs/6f0c2f6e-0b3c-4c5e-9a53-2f0f6a1f3f57/cancel"): Scope.WRITE,
    ("POST", "/jobs/6f0c2f6e-0b3c-4c5e-9a53-2f0f6a1f3f57/retry"): Scope.WRITE,
    ("GET", "/links"): (Scope.READ, Scope.WRITE),
    ("DELETE", "/links/6f0c2f6e-0b3c-4c5e-9a53-2f0f6a1f3f57"): (Scope.READ, Scope.WRITE),
    ("GET", "/keys"): Scope.READ,
    ("POST", "/keys"): Scope.WRITE,
    ("DELETE", "/keys/OCC4GT7Q0N2M5V8X1Z3B"): Scope.WRITE,
    ("POST", "/keys/OCC4GT7Q0N2M5V8X1Z3B/rotate"): Scope.WRITE,
    ("GET", "/activity"): Scope.READ,
    ("GET", "/history"): Scope.ADMIN,
    ("GET", "/nodes"): Scope.ADMIN,
    ("POST", "/nodes"): (Scope.ADMIN, Scope.WRITE),
    ("GET", "/nodes/node_000"): Scope.ADMIN,
    ("POST", "/nodes/node_000/audit"): (Scope.ADMIN, Scope.WRITE),
    ("POST", "/nodes/node_000/drain"): (Scope.ADMIN, Scope.WRITE),
    ("POST", "/nodes/node_000/retire"): (Scope.ADMIN, Scope.WRITE),
    ("GET", "/no/such/page"): Scope.READ,
}


def test_every_address_is_among_the_requests_here() -> None:
    paths = [path for _, path in REQUESTS]
    for pattern in get_resolver("storage.api.urls").url_patterns:
        assert isinstance(pattern, URLPattern)
        open_to_all = ("health", "livez", "readyz", "schema", "docs", "share/token", "share/token/name")
        if not any(map(pattern.resolve, open_to_all)):
            assert any(pattern.resolve(path[1:]) for path in (*paths, "/slash/")), pattern


@pytest.mark.parametrize(("method", "path"), REQUESTS, ids=" ".join)
def test_a_request_without_a_key_that_allows_it_is_refused(keys_on: ClusterUnderTest, method: str, path: str) -> None:
    body: dict[str, Any] = (
        {"data": b"bytes", "content_type": "application/octet-stream"} if method in ("POST", "PUT") else {}
    )
    missing = Client().generic(method, path, **body)
    assert missing.status_code == 401
    assert re.match(r'Basic realm="[^"]+".*Bearer', missing.headers["WWW-Authenticate"])
    needed = REQUESTS[method, path]
    scopes = needed if isinstance(needed, tuple) else (needed,)
    for scope in scopes:
        others = Client().generic(method, path, headers=bearer("ann", set(Scope) - {scope}), **body)
        assert others.status_code == 403
    waits_for_nobody = {**bearer("ann", scopes), "Prefer": "respond-async"}
    allowed = Client().generic(method, path, headers=waits_for_nobody, **body)
    assert allowed.status_code not in (401, 403)


def test_health_the_administration_and_preflights_ask_for_no_key(keys_on: ClusterUnderTest) -> None:
    assert Client().get("/health").status_code == 200
    assert Client().get("/admin/").status_code == 302
    assert Client().get("/favicon.ico").status_code == 302
    assert b"Disallow: /" in Client().get("/robots.txt").content
    assert Client().options("/upload").status_code == 200
    for path in ("/healthy", "/admins", "/health/", "/static", "//health"):
        assert Client().get(path).status_code == 401, path


def test_everybody_learns_what_security_md_says(keys_on: ClusterUnderTest) -> None:
    assert Client().get("/version").status_code == 401
    assert Client().get("/schema", headers={"Accept": "application/json"}).json()["info"]["version"] == VERSION
    away = keys_on.holders(keys_on.upload(b"x").content.manifest()[0][0])[0]
    keys_on.take_offline(away)
    for path in ("/health", "/readyz"):
        told = Client().get(path).json()["degraded"]
        assert f"{away} is offline" in told[0], "probes and the manager ask without a key"


def test_a_refused_upload_reads_no_body_and_leaves_nothing(keys_on: ClusterUnderTest) -> None:
    class Unread:
        def read(self, *_: int) -> bytes:
            raise AssertionError("the body was read")

        readline = read

    for headers in ({}, bearer("ann", [Scope.READ])):
        fields: dict[str, Any] = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        for method, path in (("PUT", "/upload/a"), ("POST", "/upload")):
            response = Client().generic(method, path, **{"wsgi.input": Unread(), "CONTENT_LENGTH": "1000000", **fields})
            assert_problem(response, 403 if headers else 401)
    assert_nothing_left(keys_on)


def test_the_clients_of_the_seed_work_with_a_name_and_a_password(served: ClusterUnderTest) -> None:
    token = bearer("ann")["Authorization"].removeprefix("Bearer ")
    headers = {"Authorization": "Basic " + base64.b64encode(token.encode()).decode()}
    form = {"file": SimpleUploadedFile("example.pdf", DATA)}
    assert Client().post("/upload", form, headers=headers).status_code == 201
    assert Client().get(f"/download/{HASH}", headers=headers).getvalue() == DATA
    assert File.objects.get().owner == owner("ann")


def test_answers_are_for_no_shared_cache(served: ClusterUnderTest) -> None:
    ann = bearer("ann")
    put(ann, "anns.txt")
    for path, told in (
        ("/files", "private"),
        (f"/files/{HASH}", "private, no-cache"),
        (f"/download/{HASH}", "private, no-cache"),
    ):
        assert Client().get(path, headers=ann).headers["Cache-Control"] == told


# -- one owner and another ---------------------------------------------------


def answers(headers: dict[str, str], file_hash: str) -> Iterator[tuple[str, int, Any]]:
    """Send every request about a file. Yield each request, its status, and its body with the hash replaced."""
    for method, path in (
        ("GET", "/files/{}"),
        ("GET", "/files/{}?file_name=anns.txt"),
        ("PATCH", "/files/{}"),
        ("DELETE", "/files/{}"),
        ("GET", "/download/{}"),
        ("HEAD", "/download/{}"),
        ("GET", "/download/{}?file_name=anns.txt"),
        ("GET", "/verify/{}"),
        ("GET", "/verify/{}?deep=true"),
        ("POST", "/rebalance/{}"),
    ):
        more: dict[str, Any] = (
            {"data": '{"file_name": "x"}', "content_type": "application/json"} if method == "PATCH" else {}
        )
        headers = {**headers, "X-Request-ID": "always-the-same"}
        response = Client().generic(method, path.format(file_hash), headers=headers, **more)
        body = response.getvalue() if response.streaming else response.content
        yield f"{method} {path}", response.status_code, body.replace(file_hash.encode(), b"HASH")


def test_a_file_of_another_owner_is_answered_like_a_file_that_nobody_has(served: ClusterUnderTest) -> None:
    ann, bob = bearer("ann"), bearer("bob")
    assert put(ann, "anns.txt").status_code == 201
    for theirs, none in zip(answers(bob, HASH), answers(bob, UNKNOWN), strict=True):
        assert theirs == none
        assert theirs[1] == 404, theirs
    assert Client().get(f"/download/{HASH}", headers=ann).getvalue() == DATA


def test_the_files_of_other_owners_are_neither_listed_nor_counted(served: ClusterUnderTest) -> None:
    ann, bob = bearer("ann"), bearer("bob")
    put(ann, "anns.txt")
    put(bob, "bobs.txt", b"other bytes")
    for headers, name in ((ann, "anns.txt"), (bob, "bobs.txt")):
        for query in ("", "?sort=-file_size", "?prefix=a&name=n", "?prefix=b"):
            body = Client().get(f"/files{query}", headers=headers).json()
            assert body["total_files"] == 1
            assert {file["file_name"] for file in body["files"]} <= {name}


def test_an_upload_does_not_tell_that_another_owner_has_the_bytes(served: ClusterUnderTest) -> None:
    ann, bob = bearer("ann"), bearer("bob")
    put(ann, "anns.txt")
    told, fresh = put(bob, "bobs.txt"), put(bob, "fresh.txt", b"bytes that nobody had")
    assert (told.status_code, told.json()["deduplicated"]) == (201, False)
    assert told.json().keys() == fresh.json().keys()
    assert told.json()["file_name"] == "bobs.txt"
    unnamed = Client().post("/upload", DATA[::-1], content_type="application/octet-stream", headers=bob)
    assert unnamed.json()["file_name"] == hashlib.sha256(DATA[::-1]).hexdigest()


def test_bytes_without_a_name_do_not_get_the_name_of_another_owner(served: ClusterUnderTest) -> None:
    put(bearer("ann"), "anns.txt")
    response = Client().post("/upload", DATA, content_type="application/octet-stream", headers=bearer("bob"))
    assert response.json()["file_name"] == HASH


def test_a_digest_tells_nothing_before_the_body_has_come(served: ClusterUnderTest) -> None:
    put(bearer("ann"), "anns.txt")
    claim = base64.b64encode(bytes.fromhex(HASH)).decode()
    for header in ("Repr-Digest", "Content-Digest"):
        headers = {**bearer("bob"), header: f"sha-256=:{claim}:"}
        assert_problem(put(headers, "bobs.txt", b"other bytes"), 400, header)
    assert not File.objects.filter(owner=owner("bob")).exists()


def test_one_owner_deletes_and_the_other_keeps(served: ClusterUnderTest) -> None:
    ann, bob = bearer("ann"), bearer("bob")
    put(ann, "same.txt")
    put(bob, "same.txt")
    assert Client().delete(f"/files/{HASH}", headers=ann).status_code == 204
    assert Client().get(f"/download/{HASH}", headers=ann).status_code == 404
    assert Client().get(f"/download/{HASH}", headers=bob).getvalue() == DATA


def test_a_job_is_shown_to_who_asked_for_it_and_to_admins(served: ClusterUnderTest) -> None:
    ann, bob, root = bearer("ann"), bearer("bob"), bearer("root", EVERY)
    put(ann, "anns.txt")
    put(bob, "bobs.txt")
    Client().post(f"/rebalance/{HASH}", headers={**ann, "Prefer": "respond-async"})
    for job in Job.objects.filter(owner=owner("ann")):
        path = f"/jobs/{job.pk}"
        assert Client().get(path, headers=ann).status_code == 200
        assert Client().get(path, headers=root).status_code == 200
        theirs = assert_problem(Client().get(path, headers=bob), 404)
        unknown = "6f0c2f6e-0b3c-4c5e-9a53-2f0f6a1f3f57"
        none = assert_problem(Client().get(f"/jobs/{unknown}", headers=bob), 404)
        assert theirs["detail"].replace(str(job.pk), "") == none["detail"].replace(unknown, "")
    assert {job.kind for job in Job.objects.filter(owner=owner("ann"))} == {Job.Kind.INGEST, Job.Kind.REBALANCE}


def test_two_owners_who_rebalance_the_same_bytes_have_a_job_each(keys_on: ClusterUnderTest) -> None:
    for name in ("ann", "bob"):
        put({**bearer(name), "Prefer": "respond-async"}, "same.txt")
    keys_on.ingest()
    locations = set()
    for name in ("ann", "bob"):
        headers = {**bearer(name), "Prefer": "respond-async"}
        response = Client().post(f"/rebalance/{HASH}", headers=headers)
        assert Client().get(response.headers["Location"], headers=headers).status_code == 200
        locations.add(response.headers["Location"])
    assert len(locations) == 2


def test_a_page_of_another_site_changes_nothing_with_a_key_that_a_browser_remembers(
    served: ClusterUnderTest, settings: Any
) -> None:
    ann, foreign = bearer("ann"), "https://elsewhere.example"
    for fields in (
        {"Sec-Fetch-Site": "cross-site", "Origin": foreign},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none", "Origin": foreign},
        {"Origin": foreign},  # Over plain HTTP, browsers do not send Sec-Fetch-Site.
        {"Origin": "null"},
        {"Origin": "https://testserver"},
        {"Origin": "http://testserver:81"},
    ):
        assert_problem(put({**ann, **fields}, "a.txt"), 403)
    own = {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}
    assert put({**ann, **own}, "a.txt").status_code == 201
    assert put({**ann, "Origin": "http://TestServer"}, "a.txt").status_code == 200
    settings.CORS_ALLOWED_ORIGINS = [foreign]
    assert put({**ann, "Sec-Fetch-Site": "cross-site", "Origin": foreign}, "a.txt").status_code == 200


def test_a_page_of_an_allowed_site_can_read_why_it_is_refused(keys_on: ClusterUnderTest, settings: Any) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example"]
    for headers, status in (({}, 401), ({"Host": "bad host"}, 400), (bearer("ann", [Scope.WRITE]), 403)):
        response = Client().get("/files", headers={**headers, "Origin": "https://app.example"})
        assert_problem(response, status)
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]
        foreign = Client().get("/files", headers={**headers, "Origin": "https://elsewhere.example"})
        assert_problem(foreign, status)
        assert "Access-Control-Allow-Origin" not in foreign.headers


# -- files of ``nobody`` that are given to a user ----------------------------


def test_files_from_the_time_without_keys_are_given_to_a_user(cluster: ClusterUnderTest) -> None:
    first, second = cluster.upload(b"1", "first", factor=2), cluster.upload(b"2", "second")
    ann: User = owner("ann")
    File.objects.create(owner=ann, content=first.content, name="first", size=1, replication_factor=1)
    waiting = cluster.accept(b"3", "third")
    assert catalogue.give_all(nobody(), ann) == 3
    assert not File.objects.filter(owner=nobody()).exists()
    given = dict(File.objects.filter(owner=ann).values_list("name", "replication_factor"))
    assert given == {"first": 2, "second": 3, "third": 3}
    assert cluster.download(File.objects.get(name="second")) == b"2"
    cluster.ingest()
    waiting.job.refresh_from_db()
    assert (waiting.job.state, waiting.job.owner) == (Job.State.SUCCEEDED, ann)
    assert File.count_ready(ann) == 3
    assert catalogue.give_all(nobody(), ann) == 0
    assert second.content.target == 3
