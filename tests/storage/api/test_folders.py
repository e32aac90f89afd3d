"""Names with folders: on every door, in the listing of one folder, and in downloads (ADR 32)."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.models import File, folders, nobody
from tests.support.api import WholeClient, assert_problem
from tests.support.cluster import ClusterUnderTest

TREE = (
    "z.txt",
    "a.txt",
    "photos/1.jpg",
    "photos/2.jpg",
    "photos/2025/x.jpg",
    "photos/2025/y/z.jpg",
    "photos!/1",
    "b/c/d",
)


@pytest.fixture
def tree(cluster: ClusterUnderTest) -> ClusterUnderTest:
    for name in TREE:
        cluster.upload(name.encode() * (9 if name == "a.txt" else 1), name)
    return cluster


def level(query: str = "") -> tuple[list[str], list[str]]:
    body = Client().get(f"/files?delimiter=/&{query}").json()
    return body["folders"], [file["file_name"] for file in body["files"]]


def test_a_folder_is_listed_without_what_is_deeper(tree: ClusterUnderTest) -> None:
    assert level() == (["b/", "photos!/", "photos/"], ["z.txt", "a.txt"])
    assert level("prefix=photos/") == (["photos/2025/"], ["photos/1.jpg", "photos/2.jpg"])
    assert level("prefix=photos/2025/") == (["photos/2025/y/"], ["photos/2025/x.jpg"])
    assert level("prefix=b/") == (["b/c/"], [])
    assert level("prefix=photos") == (["photos!/", "photos/"], [])
    assert level("prefix=photos/2") == (["photos/2025/"], ["photos/2.jpg"])
    assert level("prefix=nothing/") == ([], [])
    assert level("sort=file_name") == (["b/", "photos!/", "photos/"], ["a.txt", "z.txt"])
    assert level("sort=-file_size")[1] == ["a.txt", "z.txt"]
    assert len(Client().get("/files?prefix=photos/").json()["files"]) == 4, "without a delimiter, all that is below"
    assert "folders" not in Client().get("/files").json()


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("sort", ["created_at", "-file_name", "file_size"])
def test_pages_have_every_folder_and_file_once(tree: ClusterUnderTest, limit: int, sort: str) -> None:
    address: Any = f"/files?delimiter=/&limit={limit}&sort={sort}"
    seen: list[str] = []
    while address:
        page = Client().get(address).json()
        entries = page["folders"] + [file["file_name"] for file in page["files"]]
        assert 0 < len(entries) <= limit
        seen, address = seen + entries, page["next"]
    whole = level(f"sort={sort}")
    assert seen == whole[0] + whole[1]


def test_a_listing_of_a_folder_that_makes_no_sense_is_a_400(tree: ClusterUnderTest) -> None:
    assert_problem(Client().get("/files?delimiter=x"), 400, "delimiter")
    assert_problem(Client().get("/files?delimiter=/&name=a"), 400, "delimiter")
    following = Client().get("/files?delimiter=/&limit=1").json()["next"]
    assert_problem(Client().get(following.replace("delimiter=%2F&", "")), 400, "cursor")
    for cursor in (["created_at", False, "a"], ["created_at", False, "\0/"], ["file_size", False, "a/"]):
        text = b64encode(json.dumps(cursor).encode()).decode().rstrip("=")
        assert_problem(Client().get(f"/files?delimiter=/&cursor={text}"), 400, "cursor")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    names=st.sets(
        st.lists(st.sampled_from(["a", "b", "a b", "!", "0", "é", "𝄞"]), min_size=1, max_size=4).map("/".join)
    ),
    prefix=st.sampled_from(["", "a", "a/", "a/b/", "é/", "𝄞", "/", "b//"]),
    most=st.integers(1, 4),
)
def test_folders_are_those_of_the_names(cluster: ClusterUnderTest, names: set[str], prefix: str, most: int) -> None:
    owner = nobody()
    content = (File.objects.first() or cluster.upload(b"x", "first")).content
    File.objects.all().delete()
    File.objects.bulk_create(
        File(owner=owner, content=content, name=name, size=1, replication_factor=1) for name in names
    )
    depth = prefix.count("/") + 1
    below = {name for name in names if name.startswith(prefix) and name.count("/") >= depth}
    wanted = sorted({"/".join(name.split("/")[:depth]) + "/" for name in below})
    seen: list[str] = []
    while page := folders(owner.pk, prefix, after=seen[-1] if seen else "", most=most):
        seen += page
    assert seen == wanted


def test_folders_are_their_owners_own(tree: ClusterUnderTest) -> None:
    assert folders(User.objects.create(username="other").pk, "", most=9) == []


def test_every_door_takes_a_path(workers: ClusterUnderTest) -> None:
    client = WholeClient()
    client.put("/upload/raw/a%20b/c.txt", b"1", content_type="text/plain")
    client.put("/upload/raw%2Fd.txt", b"2", content_type="text/plain")
    client.post("/upload?file_name=query/e.txt", {"file": SimpleUploadedFile("x", b"3")})
    boundary = 'Content-Disposition: form-data; name="file"; filename="form/f.txt"'
    body = f"--B\r\n{boundary}\r\n\r\n4\r\n--B--\r\n".encode()
    client.post("/upload", body, content_type="multipart/form-data; boundary=B")
    fields = {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": "1",
        "Upload-Metadata": f"filename {b64encode(b'tus/g').decode()}",
    }
    begun = client.post("/uploads/", b"5", content_type="application/offset+octet-stream", headers=fields)
    assert begun.status_code == 201, begun.content
    workers.ingest()
    names = {file["file_name"] for file in client.get("/files").json()["files"]}
    assert names == {"raw/a b/c.txt", "raw/d.txt", "query/e.txt", "form/f.txt", "tus/g"}


def test_a_rename_moves_a_file_to_another_folder(tree: ClusterUnderTest) -> None:
    file = File.objects.get(name="z.txt")
    address = f"/files/{file.content.file_hash}"
    moved = Client().patch(address, json.dumps({"file_name": "new/z.txt"}), content_type="application/json")
    assert moved.json()["file_name"] == "new/z.txt"
    assert level("prefix=new/") == ([], ["new/z.txt"])
    chosen: Any = Client().get(f"/download/{file.content.file_hash}?file_name={quote('new/z.txt', safe='')}")
    assert chosen.headers["Content-Disposition"] == 'attachment; filename="z.txt"'
    for name in ("/z", "a//z", "a/", "../z", "a/./z"):
        refused = Client().patch(address, json.dumps({"file_name": name}), content_type="application/json")
        assert_problem(refused, 400, "file_name")


def test_a_shared_file_is_saved_without_its_folders(tree: ClusterUnderTest) -> None:
    file_hash = File.objects.get(name="photos/2025/x.jpg").content.file_hash
    link = Client().post(f"/files/{file_hash}/links", content_type="application/json").json()
    shared: Any = Client().get(link["url"].removeprefix("http://testserver"))
    assert (shared.status_code, shared.headers["Content-Disposition"]) == (200, 'attachment; filename="x.jpg"')
