"""GET /files, and GET, PATCH and DELETE of /files/<hash>."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from django.test import Client
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from storage.models import File, Job
from tests.support.api import assert_problem
from tests.support.cluster import ClusterUnderTest


def patch(file: File, body: Any) -> Any:
    return Client().patch(
        f"/files/{file.content.file_hash}",
        body if isinstance(body, str) else json.dumps(body),
        content_type="application/json",
    )


def test_a_file_is_listed_with_the_fields_of_the_readme(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"x" * 5000, name="example.pdf")
    body = Client().get("/files").json()
    assert (body["total_files"], body["next"]) == (1, None)
    entry = body["files"][0]
    wanted = {
        "file_hash": file.content.file_hash,
        "file_name": "example.pdf",
        "file_size": 5000,
        "chunks": 2,
        "retrievable": True,
        "min_replication": 3,
        "avg_replication": 3.0,
    }
    assert {name: entry[name] for name in wanted} == wanted
    shown = Client().get(f"/files/{file.content.file_hash}").json()
    assert shown == {**entry, "names": ["example.pdf"]}


def test_json_is_indented_for_whoever_asks_and_says_the_same(cluster: ClusterUnderTest) -> None:
    cluster.upload(b"x", name="Übersicht.pdf")
    for url in ("/files", "/status", f"/jobs/{Job.objects.get().pk}"):  # These answers have names, numbers and times.
        compact, indented = Client().get(url), Client().get(url, headers={"Accept": "application/json; indent=2"})
        assert compact.content.count(b"\n") == 1, "only at its end"
        assert b"\n  " in indented.content
        assert compact.json().keys() == indented.json().keys()
        if url != "/status":  # /status contains ages, which change between the two requests.
            assert compact.json() == indented.json()


def test_pages_follow_one_another_and_have_every_file_once(cluster: ClusterUnderTest) -> None:
    hashes = [cluster.upload(b"%d" % i).content.file_hash for i in range(5)]
    url: Any = "/files?limit=2"
    seen = []
    for wanted in (2, 2, 1):
        page = Client().get(url).json()
        assert page["total_files"] == 5
        assert len(page["files"]) == wanted
        seen += [file["file_hash"] for file in page["files"]]
        url = page["next"]
    assert url is None
    assert seen == hashes


def test_a_page_stays_right_when_a_file_of_an_earlier_one_goes(cluster: ClusterUnderTest) -> None:
    files = [cluster.upload(b"%d" % i) for i in range(4)]
    following = Client().get("/files?limit=2").json()["next"]
    Client().delete(f"/files/{files[0].content.file_hash}")
    names = [file["file_hash"] for file in Client().get(following).json()["files"]]
    assert names == [file.content.file_hash for file in files[2:]]


def test_a_page_that_is_none_is_a_400(db: None) -> None:
    for limit in ("0", "1001", "abc", "", "-1", "1e3", "9" * 5000):
        assert_problem(Client().get(f"/files?limit={limit}"), 400, "limit")
    for cursor in ("zzz", "", "%00", "%c3%a9", "Z" * 3000, "9" * 40):
        assert_problem(Client().get(f"/files?cursor={cursor}"), 400, "cursor")


def test_a_rename_is_what_downloads_are_called(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"x", name="old.txt")
    assert patch(file, {"file_name": "new.txt"}).json()["file_name"] == "new.txt"
    disposition = Client().get(f"/download/{file.content.file_hash}").headers["Content-Disposition"]
    assert disposition == 'attachment; filename="new.txt"'


def test_a_name_that_is_none_is_a_400(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"x", name="old.txt")
    names: list[Any] = ["a\0b", "\ud800", "", None, True, ["a"], {"a": 1}, "x" * 256, "..", "a/", "a\n", "\x85"]
    for name in names:
        assert_problem(patch(file, {"file_name": name}), 400, "file_name")
    for body in ("{}", "[]", "null", "5", "{bad", ""):
        assert_problem(patch(file, body), 400)
    file.refresh_from_db()
    assert file.name == "old.txt"


def test_a_new_name_is_kept_as_it_is_written(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"x")
    for name in (" a ", "research&notes.txt", "C:\\x", "\u202e", "x" * 255):
        for content_type, body in (
            ("application/json", json.dumps({"file_name": name})),
            ("application/x-www-form-urlencoded", urlencode({"file_name": name})),
            (MULTIPART_CONTENT, encode_multipart(BOUNDARY, {"file_name": name})),
        ):
            response: Any = Client().patch(f"/files/{file.content.file_hash}", body, content_type=content_type)
            assert (response.status_code, response.json()["file_name"]) == (200, name), content_type


def test_a_new_name_that_is_not_utf_8_is_refused_in_words(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"x", name="old.txt")
    multipart = b'--BB\r\nContent-Disposition: form-data; name="file_name"\r\n\r\n\xff\r\n--BB--\r\n'
    for content_type, body in (
        ("application/json", b'{"file_name": "\xff"}'),
        ("application/x-www-form-urlencoded", b"file_name=%FF"),
        ("application/x-www-form-urlencoded", b"file_name=\xff"),
        ("multipart/form-data; boundary=BB", multipart),
    ):
        path = f"/files/{file.content.file_hash}"
        problem = assert_problem(Client().patch(path, body, content_type=content_type), 400)
        assert "UTF-8" in str(problem), problem
        assert "0x" not in str(problem), problem
        page: Any = Client().patch(path, body, content_type=content_type, headers={"Accept": "text/html"})
        assert page.status_code == 400
    file.refresh_from_db()
    assert file.name == "old.txt"


def test_a_deleted_file_is_gone(cluster: ClusterUnderTest) -> None:
    file_hash = cluster.upload(b"x").content.file_hash
    assert Client().delete(f"/files/{file_hash}").status_code == 204
    for path in (f"/files/{file_hash}", f"/download/{file_hash}", f"/verify/{file_hash}"):
        assert_problem(Client().get(path), 404)
    assert_problem(Client().delete(f"/files/{file_hash}"), 404)
    assert Client().get("/files").json()["total_files"] == 0
