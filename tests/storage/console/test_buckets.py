"""The pages of buckets and of their objects, as a browser without scripts sees them."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User

from storage.models import Bucket, Object
from tests.support.cluster import ClusterUnderTest
from tests.support.console import Browser, Page, seen
from tests.support.keys import owner
from tests.support.objects import make_bucket, put

HOSTILE = [
    "a/../b",
    "..",
    "a//b",
    "//",
    "/a",
    "folder/",
    "a%2Fb",
    "a?b#c&d=e+f",
    "a\nb",
    "a\r\nb",
    """<script>alert("1")<b>&'`x`\u202efdp.exe""",
    "ünï/\U0001f40c.txt",
    "x" * 1024,
]


@pytest.fixture
def browser(workers: ClusterUnderTest) -> Browser:
    return Browser()


def links(text: str, beginning: str) -> list[str]:
    """The addresses of the links of a page that begin with a text, each once."""
    return list(dict.fromkeys(unescape(found) for found in re.findall(rf'href="({beginning}[^"]*)"', text)))


def downloads(text: str) -> list[str]:
    return links(text, "/buckets/")


def test_the_files_lead_to_the_buckets_if_there_are_any(workers: ClusterUnderTest, page: Page) -> None:
    assert "Buckets" not in seen(page("/"))
    assert "You have no buckets" in page("/console/buckets")
    make_bucket("photos")
    assert links(page("/"), "/console/buckets") == ["/console/buckets"]


def test_buckets_are_listed_with_what_they_hold(
    workers: ClusterUnderTest, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.console.buckets.PAGE_SIZE", 2)
    for name in ("one", "three", "two"):
        make_bucket(name)
    Bucket.objects.filter(name="one").update(max_bytes=2_000_000, max_objects=10)
    put(workers, Bucket.objects.get(name="one"), "key", b"12345")
    text = page("/console/buckets")
    assert links(text, "/console/buckets/") == ["/console/buckets/one", "/console/buckets/three"]
    assert "5 bytes of 2.0 MB 1 of 10" in seen(text)
    (more,) = links(text, r"\?cursor")
    assert links(page(f"/console/buckets{more}"), "/console/buckets/") == ["/console/buckets/two"]


def test_objects_are_listed_by_folders_searched_and_paged(
    workers: ClusterUnderTest, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.console.buckets.PAGE_SIZE", 2)
    bucket = make_bucket("photos")
    for key in ("2026/june/a.jpg", "2026/x.txt", "2026/y.txt", "cat.jpg"):
        put(workers, bucket, key, b"12345")
    text = page("/console/buckets/photos")
    assert downloads(text) == ["/buckets/photos/object?key=cat.jpg"]
    (folder,) = links(text, r"/console/buckets/photos\?folder")
    assert "cat.jpg 5 bytes" in seen(text)
    assert "3 copies" in seen(text)
    assert "4 objects in all" in seen(text)
    first = page(folder)
    assert links(first, r"/console/buckets/photos\?folder=2026%2Fjune") == [
        "/console/buckets/photos?folder=2026%2Fjune%2F"
    ]
    assert downloads(first) == ["/buckets/photos/object?key=2026%2Fx.txt"]
    (more,) = links(first, r"/console/buckets/photos\?folder=2026%2F&")
    assert downloads(page(more)) == ["/buckets/photos/object?key=2026%2Fy.txt"]
    assert downloads(page(f"{folder}&q=y")) == ["/buckets/photos/object?key=2026%2Fy.txt"]
    assert "No object" in page(f"{folder}&q=none")
    part = page(folder, **{"HX-Request": "true", "HX-Target": "list"})
    assert part.strip().startswith('<section id="list"')
    for strange in ("?q=%00", "?folder=none/", "?cursor=x", "?q=" + "x" * 2000):
        page(f"/console/buckets/photos{strange}")
    page("/console/buckets/none", 404)


def test_an_object_is_deleted_after_a_question_without_scripts(browser: Browser, workers: ClusterUnderTest) -> None:
    bucket = make_bucket("photos")
    for key in ("2026/a.jpg", "2026/b.jpg"):
        put(workers, bucket, key, b"x")
    (deletion, _) = links(browser.open("/console/buckets/photos?folder=2026/"), "/console/buckets/photos/delete")
    question = seen(browser.open(deletion))
    assert "Delete this object?" in question
    assert "cannot be undone" in question
    assert Object.objects.count() == 2
    gone = browser.submit(deletion)
    assert gone.headers["Location"] == "/console/buckets/photos?folder=2026%2F"
    assert "“a.jpg” is deleted." in seen(browser.open(gone.headers["Location"]))
    assert list(Object.objects.values_list("key", flat=True)) == ["2026/b.jpg"]
    browser.submit(deletion)
    assert "could not be deleted: no object" in seen(browser.open("/console/buckets/photos"))


@pytest.mark.parametrize("key", HOSTILE)
def test_keys_of_every_kind_are_shown_downloaded_and_deleted(
    browser: Browser, workers: ClusterUnderTest, key: str
) -> None:
    bucket = make_bucket("photos")
    put(workers, bucket, key, b"it")
    text = browser.open("/console/buckets/photos")
    while not downloads(text):
        (folder,) = [
            each
            for each in links(text, r"/console/buckets/photos\?folder")
            if f'href="{each.replace("&", "&amp;")}"' in text.partition('id="rows"')[2]
        ]
        text = browser.open(folder)
    assert "<script>alert" not in text
    assert "\n" not in key or "U+000A" in seen(text)
    rows = text.partition('id="rows"')[2]
    assert re.search(r"<bdi>\s*\S", rows), "a name that is empty is no link"
    assert "<bdi></bdi>" not in text
    (download,) = downloads(text)
    downloaded: Any = browser.get(download)
    assert b"".join(downloaded.streaming_content) == b"it"
    (deletion,) = links(text, "/console/buckets/photos/delete")
    assert "<script>alert" not in browser.open(deletion)
    browser.open(browser.submit(deletion).headers["Location"])
    assert Object.objects.count() == 0


def test_a_bucket_of_another_owner_is_not_there(workers: ClusterUnderTest, keys_on: ClusterUnderTest) -> None:
    put(workers, make_bucket("anns", owner("ann")), "key", b"x")
    User.objects.create_user("ben", password="secret of ben")
    browser = Browser()
    browser.open("/console/login")
    browser.submit("/console/login", 302, username="ben", password="secret of ben")
    assert "Buckets" not in seen(browser.open("/"))
    assert "anns" not in browser.open("/console/buckets")
    missing = seen(browser.open("/console/buckets/none", 404)).replace("none", "anns")
    theirs = seen(browser.open("/console/buckets/anns", 404))
    assert re.sub(r"[0-9a-f-]{36}", "", theirs) == re.sub(r"[0-9a-f-]{36}", "", missing)
    browser.open("/console/buckets/anns/delete?key=key")
    browser.submit("/console/buckets/anns/delete?key=key")
    assert Object.objects.count() == 1


def test_a_form_of_another_site_deletes_nothing(browser: Browser, workers: ClusterUnderTest) -> None:
    put(workers, make_bucket("photos"), "key", b"x")
    browser.submit(f"/console/buckets/photos/delete?key={quote('key')}", 403)
    assert Object.objects.count() == 1


def test_a_row_of_the_list_is_small(workers: ClusterUnderTest, page: Page) -> None:
    """A page of the console has at most 200 KB, and fifty rows."""
    folder = "a folder with a long name/" * 4
    put(workers, make_bucket("photos"), f"{folder}a file with a name of {'x' * 40}.jpeg", b"x")
    text = page(f"/console/buckets/photos?folder={folder}")
    (row,) = re.findall(r"<tr>\s*<td>.*?</tr>", text.partition('id="rows"')[2], re.DOTALL)
    assert len(row.encode()) < 3600
