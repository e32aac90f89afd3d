"""The list of files and the page of one file, as a browser without scripts sees them."""

from __future__ import annotations

import io
import re
from typing import Any
from urllib.parse import quote

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from storage.models import File, Link
from storage.services import reclaim
from tests.support.cluster import ClusterUnderTest
from tests.support.console import BROWSER, Browser, Page, seen

HOSTILE = """<script>alert("1")<b>&'`x`\u202efdp.exe"""
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
HTML = b"<html><script>alert(1)</script></html>"


@pytest.fixture
def browser(workers: ClusterUnderTest) -> Browser:
    return Browser()


def address(file: File, part: str = "") -> str:
    return f"/console/file/{file.content.file_hash}{part}?file_name={quote(file.name)}"


def names(text: str) -> list[str]:
    return re.findall(r'<input type="checkbox" name="item" value="[0-9a-f]{64}/([^"]*)"', text)


def test_an_empty_list_explains_itself(page: Page) -> None:
    text = page("/")
    assert "No files yet" in text
    assert 'type="file" id="file" name="file"' in text


def test_the_list_is_newest_first_and_is_searched_sorted_and_paged(
    workers: ClusterUnderTest, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.console.files.PAGE_SIZE", 2)
    for name, data in (("b.txt", b"22"), ("a.txt", b"1"), ("c report.txt", b"333")):
        workers.upload(data, name)
    first = page("/")
    assert names(first) == ["c report.txt", "a.txt"]
    assert "3 files in all · 6 bytes stored" in seen(first)
    (more,) = re.findall(r'<a class="button" href="([^"]*)"', first)
    assert names(page(more.replace("&amp;", "&"))) == ["b.txt"]
    assert names(page("/?sort=file_name")) == ["a.txt", "b.txt"]
    assert names(page("/?sort=-file_size")) == ["c report.txt", "b.txt"]
    assert names(page("/?q=REPORT")) == ["c report.txt"]
    assert "No file has" in page("/?q=nothing")
    for strange in ("/?q=a/b", "/?q=%00", "/?sort=nonsense", "/?cursor=x", "/?q=" + "x" * 300):
        page(strange)


def test_a_row_of_the_list_is_small(workers: ClusterUnderTest, page: Page) -> None:
    """A page of the console has at most 200 KB, and fifty rows."""
    name = f"{'a folder with a long name/' * 4}a file with a name of {'x' * 40}.jpeg"
    workers.upload(b"x", name)
    (row,) = re.findall(r"<tr>\s*<td>.*?</tr>", page("/?q=folder"), re.DOTALL)
    assert names(row) == [name]
    assert len(row.encode()) < 3600


def test_a_file_is_uploaded_and_deleted_without_scripts(browser: Browser, workers: ClusterUnderTest) -> None:
    browser.submit("/console/upload", file=SimpleUploadedFile("plain ä.txt", b"plain"))
    text = browser.open("/")
    assert "“plain ä.txt” is stored" in seen(text)
    (deletion,) = re.findall(r'href="(/console/delete\?[^"]*)"', text)
    assert "Delete this file?" in browser.open(deletion)
    file = File.objects.get()
    gone = browser.submit("/console/delete", item=f"{file.content.file_hash}/{file.name}", sure="yes", back="/?q=x")
    assert gone.headers["Location"] == "/?q=x"
    assert File.objects.count() == 0
    assert "is deleted" in seen(browser.open("/"))


def test_an_upload_without_a_file_or_with_a_bad_name_says_why(browser: Browser, workers: ClusterUnderTest) -> None:
    browser.submit("/console/upload")
    assert "Choose a file first" in browser.open("/")
    body = io.BytesIO(b"plain")
    body.name = "x" * 256
    browser.submit("/console/upload", file=body)
    assert "at most 255 characters" in browser.open("/")


def test_many_files_are_deleted_at_once(browser: Browser, workers: ClusterUnderTest) -> None:
    files = [workers.upload(f"{n}".encode(), f"{n}.txt") for n in range(3)]
    items = [f"{file.content.file_hash}/{file.name}" for file in files]
    browser.open("/")
    asked = browser.submit("/console/delete", 200, item=items)
    assert "Delete 3 files?" in asked.content.decode()
    browser.submit("/console/delete", item=[*items, f"{'0' * 64}/not there"], sure="yes")
    text = seen(browser.open("/"))
    assert "3 files are deleted" in text
    assert "1 file could not be deleted" in text
    for item in ("x", "../status", "0" * 63 + "/name"):
        browser.submit("/console/delete", 400, item=item, sure="yes")


def test_a_deletion_of_many_files_is_undone(browser: Browser, workers: ClusterUnderTest) -> None:
    files = [workers.upload(f"{n}".encode(), f"in/{n}.txt") for n in range(3)]
    items = [f"{file.content.file_hash}/{file.name}" for file in files]
    browser.open("/")
    browser.submit("/console/delete", item=items, sure="yes")
    assert "3 files are deleted. Undo" in seen(browser.open("/console/health")), "the offer stays on other pages"
    assert "No files yet" in browser.open("/")
    browser.submit("/console/undo", back="/?folder=in/")
    text = browser.open("/?folder=in/")
    assert "3 files are back" in seen(text)
    assert "Undo" not in seen(text)
    assert names(text) == ["in/2.txt", "in/1.txt", "in/0.txt"]
    browser.submit("/console/undo")
    assert "nothing to undo" in browser.open("/")


def test_an_undo_that_comes_too_late_says_so(browser: Browser, workers: ClusterUnderTest) -> None:
    file = workers.upload(b"x", "late.txt")
    for hide in (True, False):
        browser.open("/")
        browser.submit("/console/delete", item=f"{file.content.file_hash}/{file.name}", sure="yes")
        assert "“late.txt” is deleted. Undo" in seen(browser.open("/"))
        if hide:
            browser.submit("/console/undo", hide="")
            assert "Undo" not in seen(browser.open("/"))
            file = workers.upload(b"x", "late.txt")
    reclaim.reclaim(0)
    browser.submit("/console/undo")
    assert "could not be undone: the bytes of the file have been freed" in seen(browser.open("/"))
    other = Browser()
    other.open("/")
    assert other.post("/console/undo", headers=BROWSER).status_code == 403, "the form has its token"


def test_an_undo_that_has_to_wait_is_offered_again(browser: Browser, workers: ClusterUnderTest) -> None:
    file = workers.upload(b"x", "a.txt")
    ((chunk_hash, _),) = file.content.manifest()
    paths = [workers.replica_path(node_id, chunk_hash) for node_id in workers.holders(chunk_hash)]
    browser.open("/")
    browser.submit("/console/delete", item=f"{file.content.file_hash}/{file.name}", sure="yes")
    for path in paths:
        path.rename(path.with_name("away"))
    browser.submit("/console/undo")
    assert "could not be undone: no node that answers has a copy" in seen(browser.open("/"))
    for path in paths:
        path.with_name("away").rename(path)
    browser.submit("/console/undo")
    assert names(browser.open("/")) == ["a.txt"]


def test_folders_are_pages_with_a_trail(workers: ClusterUnderTest, page: Page) -> None:
    for number, name in enumerate(("a.txt", "photos/b.txt", "photos/2026/c.txt", "photos/2026/d & e.txt")):
        workers.upload(b"%d" % number, name)
    first = page("/")
    assert names(first) == ["a.txt"]
    assert 'href="/?folder=photos%2F"' in first
    assert "photos (folder)" in seen(first)
    inner = page("/?folder=photos%2F")
    assert names(inner) == ["photos/b.txt"]
    assert "All files photos" in seen(inner)
    deepest = page("/?folder=photos%2F2026%2F&sort=file_name")
    assert names(deepest) == ["photos/2026/c.txt", "photos/2026/d &amp; e.txt"]
    assert re.search(r'<a href="/\?folder=photos%2F"[^>]*><bdi>photos</bdi></a>', deepest)
    assert 'data-folder="photos/2026/"' in deepest
    assert "This folder has no files" in page("/?folder=nothing/")
    assert names(page("/?q=C.TXT")) == ["photos/2026/c.txt"], "a search finds what is deeper"
    assert "photos/2026/c.txt" in seen(page("/?q=c.txt")), "with its folders"
    assert names(page("/?q=b&folder=photos/2026/")) == []
    for strange in ("/?folder=a//", "/?folder=/", "/?folder=%00", "/?folder=" + "x" * 300):
        page(strange)
    file = File.objects.get(name="photos/2026/c.txt")
    text = page(address(file))
    assert "<h1><bdi>c.txt</bdi></h1>" in text
    assert "All files photos 2026" in seen(text)


def test_names_are_text_whatever_they_contain(workers: ClusterUnderTest, browser: Browser) -> None:
    file = workers.upload(b"x", HOSTILE)
    long = workers.upload(b"y", "ä" * 255)
    for text in (
        browser.open("/"),
        *(browser.open(address(file, part)) for part in ("", "/copies", "/rename", "/share")),
    ):
        assert "<script>alert" not in text
        assert "\u202e" not in re.sub(r'"[^"]*"', "", text), "a mark of direction is shown, and turns nothing around"
    assert "ä" * 255 in browser.open(address(long))
    browser.open("/")
    browser.submit(address(file, "/rename"), new_name="plain.exe")
    assert "plain.exe" in browser.open("/")


def test_a_file_is_renamed_or_told_why_not(workers: ClusterUnderTest, browser: Browser) -> None:
    file = workers.upload(b"x", "old.txt")
    browser.open(address(file, "/rename"))
    refused = browser.submit(address(file, "/rename"), 400, new_name="a//b")
    assert "between two slashes" in refused.content.decode()
    assert 'value="a//b"' in refused.content.decode()
    browser.submit(address(file, "/rename"), new_name="new.txt")
    assert File.objects.get().name == "new.txt"


def test_a_share_link_is_made_opens_the_file_and_is_revoked(workers: ClusterUnderTest, browser: Browser) -> None:
    file = workers.upload(b"shared bytes", "shared.txt")
    browser.open(address(file, "/share"))
    made = browser.submit(address(file, "/share"), 200, expires_in=86400).content.decode()
    (url,) = re.findall(r"<code>http://testserver(/share/[^<]*)</code>", made)
    assert b"".join(Browser().get(url)) == b"shared bytes"
    assert "1 link opens this file" in seen(browser.open(address(file)))
    revoked = browser.submit(address(file, "/share"), 200, revoke=str(Link.objects.get().pk))
    assert "revoked" in revoked.content.decode()
    assert Browser().get(url).status_code == 404
    refused = browser.submit(address(file, "/share"), 200, expires_in=0).content.decode()
    assert "greater than or equal to 1" in refused


@pytest.mark.parametrize(
    ("name", "data", "shown"),
    [
        ("picture.txt", PNG, "<img"),
        ("page.html", HTML, "&lt;script&gt;alert(1)"),
        ("picture.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "&lt;svg"),
        ("manual.pdf", b"%PDF-1.7 x", "<iframe"),
        ("song.mp3", b"ID3" + bytes(50), "<audio"),
        ("film.mp4", bytes(4) + b"ftypisom" + bytes(50), "<video"),
        ("cut.txt", "ä".encode() * 40_000, "This is the beginning"),
        ("noise.bin", bytes(range(256)), None),
        ("empty.txt", b"", None),
    ],
)
def test_a_preview_shows_only_what_is_harmless(
    workers: ClusterUnderTest, browser: Browser, name: str, data: bytes, shown: str | None
) -> None:
    file = workers.upload(data, name)
    text = browser.open(address(file))
    if shown is None:
        assert 'class="preview"' not in text
    else:
        assert shown in text
    raw: Any = browser.get(address(file, "/preview"), headers=BROWSER)
    if shown not in ("<img", "<iframe", "<audio", "<video"):
        assert raw.status_code == 404
        assert raw.headers["Content-Type"] == "text/plain"
        return
    assert raw.headers["Content-Type"].split("/")[0] in ("image", "audio", "video", "application")
    assert "text/html" not in raw.headers["Content-Type"]
    assert raw.headers["X-Content-Type-Options"] == "nosniff"
    assert ("sandbox" in raw.headers["Content-Security-Policy"]) == (name != "manual.pdf")
    assert raw.headers["X-Frame-Options"] == "SAMEORIGIN"
    part: Any = browser.get(address(file, "/preview"), headers={**BROWSER, "Range": "bytes=1-3"})
    assert (part.status_code, b"".join(part)) == (206, data[1:4])


def test_the_page_of_a_file_says_where_its_copies_are_and_changes_their_number(
    workers: ClusterUnderTest, browser: Browser
) -> None:
    file = workers.upload(b"x" * 9000, "copied.txt", factor=2)
    text = browser.open(address(file))
    assert "kept 2 times" in seen(text)
    assert file.content.file_hash in text
    assert f"curl -OJ 'http://testserver/download/{file.content.file_hash}?file_name=copied.txt'" in seen(text)
    copies = browser.open(address(file, "/copies"))
    assert copies.count('class="yes"') == 2 * file.content.chunk_count
    browser.open(address(file))
    changed = browser.submit(address(file, "/copies"), replication_factor=4)
    assert "4 copies of every part" in browser.open(changed.headers["Location"])
    browser.submit(address(file, "/copies"), replication_factor=99)
    assert "did not change: The cluster has 5 nodes" in browser.open(address(file))


def test_every_page_has_a_policy_without_inline_scripts_and_styles(workers: ClusterUnderTest, browser: Browser) -> None:
    file = workers.upload(b"x", HOSTILE)
    pages = ["/", "/console/", "/console/health", "/console/nodes", "/console/jobs", "/console/file/" + "0" * 64]
    pages += [address(file, part) for part in ("", "/copies", "/rename", "/share")]
    for path in pages:
        response = browser.get(path, headers=BROWSER)
        policy = response.headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy, path
        assert "unsafe" not in policy
        assert response.headers["Cache-Control"] == "no-store"
        text = response.content.decode()
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", text.replace("&", "")), path
