"""The same bytes under several names of one owner."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.test import Client

from storage.models import File
from tests.support.api import assert_problem
from tests.support.cluster import ClusterUnderTest

DATA = b"the same bytes"
HASH = hashlib.sha256(DATA).hexdigest()
URL = f"/files/{HASH}"


@pytest.fixture
def two(cluster: ClusterUnderTest) -> ClusterUnderTest:
    cluster.upload(DATA, "first.txt", factor=2)
    cluster.upload(DATA, "second.txt", factor=3)
    return cluster


def rename(query: str, name: str, **headers: str) -> Any:
    body = json.dumps({"file_name": name})
    return Client().patch(f"{URL}{query}", body, content_type="application/json", headers=headers)


def names() -> list[str]:
    return [file["file_name"] for file in Client().get("/files").json()["files"]]


def test_the_newest_name_is_shown_with_all_of_them(two: ClusterUnderTest) -> None:
    shown = Client().get(URL).json()
    assert (shown["file_name"], shown["names"]) == ("second.txt", ["second.txt", "first.txt"])
    chosen = Client().get(f"{URL}?file_name=first.txt").json()
    assert (chosen["file_name"], chosen["names"], chosen["replication_factor"]) == ("first.txt", ["first.txt"], 2)
    assert_problem(Client().get(f"{URL}?file_name=third.txt"), 404)
    assert_problem(Client().get(f"{URL}?file_name="), 400, "file_name")


def test_a_download_is_called_by_the_name_that_is_chosen(two: ClusterUnderTest) -> None:
    for query, name in (
        ("", "second.txt"),
        ("?file_name=first.txt", "first.txt"),
        ("?file%5Fname=first.txt", "first.txt"),
        ("/any.txt", "any.txt"),
    ):
        response = Client().get(f"/download/{HASH}{query}")
        assert response.getvalue() == DATA
        assert response.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert_problem(Client().get(f"/download/{HASH}?file_name=third.txt"), 404)
    assert_problem(Client().get(f"/download/{HASH}?file_name=a%0Ab"), 400, "file_name")
    assert_problem(Client().get(f"/download/{HASH}?name=first.txt"), 400, "name")


def test_one_name_goes_and_the_bytes_stay(two: ClusterUnderTest) -> None:
    assert Client().delete(f"{URL}?file_name=second.txt").status_code == 204
    assert names() == ["first.txt"]
    assert Client().get(f"/download/{HASH}").getvalue() == DATA
    assert File.objects.get().content.target == 2, "the other name had wanted more copies"
    assert_problem(Client().delete(f"{URL}?file_name=second.txt"), 404)
    assert Client().delete(f"{URL}?file_name=first.txt").status_code == 204
    assert_problem(Client().get(f"/download/{HASH}"), 404)


def test_all_names_go_at_once(two: ClusterUnderTest) -> None:
    assert Client().delete(URL).status_code == 204
    assert names() == []
    assert_problem(Client().get(URL), 404)


def test_one_name_changes(two: ClusterUnderTest) -> None:
    assert rename("?file_name=first.txt", "renamed.txt").json()["names"] == ["renamed.txt"]
    assert names() == ["renamed.txt", "second.txt"]


@pytest.mark.parametrize(
    ("query", "name", "left"),
    [
        ("", "both.txt", ["both.txt"]),
        ("", "first.txt", ["first.txt"]),
        ("?file_name=first.txt", "second.txt", ["second.txt"]),
        ("?file_name=second.txt", "first.txt", ["first.txt"]),
        ("?file_name=first.txt", "first.txt", ["first.txt", "second.txt"]),
    ],
)
def test_files_of_the_same_name_and_bytes_become_one(
    two: ClusterUnderTest, query: str, name: str, left: list[str]
) -> None:
    body = rename(query, name).json()
    assert names() == left
    assert body["file_name"] == name
    assert max(File.objects.values_list("replication_factor", flat=True)) == 3, "the largest factor is kept"
    assert Client().get("/files").json()["total_files"] == len(left)


def test_an_upload_under_way_stays_with_the_file_that_its_file_has_become(cluster: ClusterUnderTest) -> None:
    for name in ("first.txt", "second.txt"):
        cluster.accept(DATA, name)
    rename("", "both.txt")
    cluster.ingest()
    assert names() == ["both.txt"]
    assert Client().get(f"/download/{HASH}").getvalue() == DATA


def test_a_tag_is_of_all_names_that_are_shown(two: ClusterUnderTest) -> None:
    before = Client().get(URL).headers["ETag"]
    of_one = Client().get(f"{URL}?file_name=first.txt").headers["ETag"]
    rename("?file_name=second.txt", "renamed.txt")
    assert Client().get(URL).headers["ETag"] != before
    assert Client().get(f"{URL}?file_name=first.txt").headers["ETag"] == of_one
    assert rename("", "lost update.txt", **{"If-Match": before}).status_code == 412
    assert rename("?file_name=first.txt", "mine.txt", **{"If-Match": of_one}).status_code == 200


def test_a_new_factor_is_for_all_names(two: ClusterUnderTest) -> None:
    response = Client().post(
        f"/rebalance/{HASH}",
        {"replication_factor": 1},
        content_type="application/json",
        headers={"Prefer": "respond-async"},
    )
    assert response.status_code == 202
    assert set(File.objects.values_list("replication_factor", flat=True)) == {1}
    two.maintain()
    assert Client().get(f"/verify/{HASH}").json()["replication"]["max"] == 1


# -- the listing -------------------------------------------------------------

SIZES = {"b": 3, "a": 3, "B": 1, "ä": 7, "a ä": 3, "ab": 2, "a%b": 9, "a_b": 9, "\U0010ffff": 1, "\ud7ff": 5}


@pytest.fixture
def many(cluster: ClusterUnderTest) -> ClusterUnderTest:
    for number, (name, size) in enumerate(SIZES.items()):
        cluster.upload(b"%d" % number * size, name)
    return cluster


def listed(**query: object) -> list[str]:
    """Return the names on all pages of two files each. Fail unless every page but the last is full."""
    url: str | None = f"/files?{urlencode({'limit': 2, **query})}"
    found: list[str] = []
    while url:
        page = Client().get(url).json()
        assert page["total_files"] == len(SIZES)
        assert len(page["files"]) == 2 or not page["next"]
        found += [file["file_name"] for file in page["files"]]
        url = page["next"]
    return found


def test_files_are_sorted_by_what_is_asked_for(many: ClusterUnderTest) -> None:
    order = list(SIZES)
    assert listed() == listed(sort="created_at") == order
    assert listed(sort="-created_at") == order[::-1]
    assert listed(sort="file_name") == sorted(order)
    assert listed(sort="-file_name") == sorted(order, reverse=True)
    by_size = sorted(order, key=lambda name: SIZES[name])
    assert listed(sort="file_size") == by_size
    assert listed(sort="-file_size") == by_size[::-1]


def test_files_are_found_by_the_beginning_of_their_names(many: ClusterUnderTest) -> None:
    for prefix in ("a", "A", "ä", "a%", "a_", "b", "\U0010ffff", "\ud7ff", "zzz"):
        for sort in ("created_at", "-file_name", "file_size"):
            assert set(listed(prefix=prefix, sort=sort)) == {name for name in SIZES if name.startswith(prefix)}


def test_files_are_found_by_a_part_of_their_names(many: ClusterUnderTest) -> None:
    for part in ("b", "Ä", "%", "_", "a"):
        wanted = {name for name in SIZES if part.upper() in name.upper()}
        assert set(listed(name=part, sort="file_name")) == wanted
    assert listed(name="b", prefix="a", sort="file_name") == ["a%b", "a_b", "ab"]


def test_pages_stay_right_while_files_of_the_same_size_come_and_go(cluster: ClusterUnderTest) -> None:
    hashes = {name: cluster.upload(name.encode(), name).content.file_hash for name in "abcdef"}
    first = Client().get("/files?limit=2&sort=file_size").json()
    Client().delete(f"/files/{hashes['b']}")
    cluster.upload(b"g", "g")
    rest = Client().get(first["next"].replace("limit=2", "limit=9")).json()
    assert [file["file_name"] for file in rest["files"]] == ["c", "d", "e", "f", "g"]


def test_a_listing_that_makes_no_sense_is_a_400(many: ClusterUnderTest) -> None:
    for field, text in (("sort", "owner"), ("sort", "--file_name"), ("sort", ""), ("prefix", "a\n"), ("name", "\0")):
        assert_problem(Client().get(f"/files?{field}={quote(text)}"), 400, field)
    assert_problem(Client().get("/files?page=2"), 400, "page")
    cursor = Client().get("/files?limit=2&sort=file_name").json()["next"].rpartition("cursor=")[2]
    problem = assert_problem(Client().get(f"/files?cursor={cursor}&sort=file_size"), 400, "cursor")
    assert "another listing" in problem["errors"]["cursor"][0]
