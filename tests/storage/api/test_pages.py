"""The pages of the API in a browser, and the same addresses for every other client."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client

from storage.models import Holding
from storage.services import verify
from tests.support.api import WholeClient, assert_problem
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import bearer, keys_on

__all__ = ["keys_on"]

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
UNKNOWN = "0" * 64
HOSTILE = """<script>alert("1")<b>&'`x`\u202efdp.exe"""


class Page(HTMLParser):
    """A page as a browser parses it: its title, its visible text, its links and its other elements."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.title = self.text = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._is_title = False
        assert response.headers["Content-Type"] == "text/html; charset=utf-8", response.content
        self.feed(response.content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._is_title = tag == "title"

    def handle_data(self, data: str) -> None:
        if self._is_title:
            self.title, self._is_title = data, False
        else:
            self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items())
        ]

    @property
    def links(self) -> set[str | None]:
        return {attributes.get("href") for attributes in self.all("a")}


def page(path: str, status: int = 200, client: type[Client] = Client, **headers: str) -> Page:
    response = client().get(path, headers={**BROWSER, **headers})
    assert response.status_code == status, response.content
    return Page(response)


@pytest.fixture
def paths(cluster: ClusterUnderTest) -> list[str]:
    """The addresses of one page of each kind. The pages about a file are about a file with a hostile name."""
    file = cluster.upload(b"x", HOSTILE)
    about = [f"/{part}/{file.content.file_hash}" for part in ("files", "verify", "rebalance")]
    route = f"/route/{verify.verify(Holding.of_file(file)).chunks[0].chunk_hash}"
    return ["/health", "/status", "/upload", "/files", route, *about]


def test_every_page_has_our_name_and_icon_and_fits_a_phone(paths: list[str]) -> None:
    for path in paths:
        shown = page(path)
        assert shown.title.endswith("OCC Storage"), path
        assert "Django" not in shown.title + shown.text, path
        assert shown.all("meta", name="viewport", content="width=device-width, initial-scale=1"), path
        (icon,) = shown.all("link", rel="icon")
        assert icon["href"] == "/static/occ/favicon.svg"
    assert Client().get("/favicon.ico").headers["Location"] == "/static/occ/favicon.svg"


def test_the_files_of_a_page_are_served(db: None) -> None:
    shown = page(f"/files/{UNKNOWN}x", 400)
    for path in ("/favicon.ico", *(str(link["href"]) for link in shown.all("link"))):
        assert WholeClient().get(path).status_code in (200, 302), path


def test_a_description_has_code_and_no_backticks(paths: list[str]) -> None:
    for path in paths:
        shown = page(path)
        described = Client().options(path).json()["description"]
        assert "`" not in shown.text.replace("`x`", ""), path
        assert bool(shown.all("code")) == ("`" in described), path


def test_a_browser_gets_the_console_and_every_other_client_the_entry_points(cluster: ClusterUnderTest) -> None:
    assert page("/").title == "Files – OCC Storage"
    for accept in ("*/*", "application/json", "application/json, text/html"):
        answer = Client().get("/", headers={"Accept": accept})
        assert {"health", "upload", "files"} < answer.json().keys(), accept
    assert "/" in page("/files").links, "the pages of the API lead to the console"


def test_an_address_that_takes_a_form_opens_with_the_form(paths: list[str]) -> None:
    upload = page("/upload")
    assert upload.all("input", type="file", name="file")
    assert upload.all("form", method="POST", action="/upload", enctype="multipart/form-data")
    rebalance = page(next(path for path in paths if "rebalance" in path))
    assert rebalance.all("input", name="replication_factor", value="3"), "the form has the present factor"
    for shown in (upload, rebalance):
        assert "405" not in shown.text
        assert "not allowed" not in shown.text.lower()


def test_only_a_browser_gets_a_form(paths: list[str]) -> None:
    for path in ("/upload", f"/rebalance/{UNKNOWN}"):
        for accept in ("*/*", "application/json", "application/json, text/html"):
            response = Client().get(path, headers={"Accept": accept})
            assert_problem(response, 405)
            assert response.headers["Allow"] == "POST, OPTIONS"
    page("/upload/name.txt", 405)


def test_there_are_forms_only_for_what_exists(paths: list[str]) -> None:
    file = next(path for path in paths if "/files/" in path)
    assert {form["data-method"] for form in page(file).all("form")} == {"PATCH", "DELETE"}
    absent = ("/files/", "/rebalance/", "/verify/", "/route/", "/jobs/")
    for path, status in (*((path + UNKNOWN, 404) for path in absent), ("/files/no-hash", 400), ("/files?limt=1", 400)):
        shown = page(path, status)
        assert shown.all("form") == [], path
        assert str(status) in shown.text
    gone = Client().delete(file, headers=BROWSER)
    assert (gone.status_code, Page(gone).all("form")) == (200, [])
    assert page(file, 404).all("form") == []


def test_hashes_jobs_and_addresses_are_links(cluster: ClusterUnderTest, workers: ClusterUnderTest) -> None:
    cluster.upload(b"other", "other.txt")
    file = cluster.upload(b"x", "a b&c.txt")
    file_hash = file.content.file_hash
    about = {f"/{part}/{file_hash}" for part in ("files", "download")}
    files = page("/files?limit=1&sort=-created_at")
    assert {*about, f"/files/{file_hash}?file_name=a%20b%26c.txt"} <= files.links
    (following,) = (str(link) for link in files.links if "cursor=" in str(link))
    assert "other.txt" in page(following).text
    assert {*about, *(f"/route/{chunk.chunk_hash}" for chunk in verify.verify(Holding.of_file(file)).chunks)} <= page(
        f"/verify/{file_hash}"
    ).links
    accepted = Client().post(f"/rebalance/{file_hash}", headers={**BROWSER, "Prefer": "respond-async"})
    (job,) = (str(link) for link in Page(accepted).links if "/jobs/" in str(link))
    assert about <= page(job).links


def test_a_hostile_name_is_only_text(paths: list[str]) -> None:
    for path in ("/files", next(path for path in paths if "/files/" in path)):
        shown = page(path)
        assert '<script>alert(\\"1\\")<b>&' in shown.text
        assert [element for element in shown.all("b") if element] == []
        assert all(script["src"] for script in shown.all("script")), "no script is in the page itself"
        assert "\\u202efdp" in shown.text
    assert "\u202e" not in shown.text, "a name cannot turn the direction of the text"
    assert shown.all("input", name="file_name", value=HOSTILE)
    cursed = page("/<script>x", 404)
    assert cursed.all("script") == []
    assert "<script>x" in cursed.text


@pytest.mark.usefixtures("either_way", "db")
@pytest.mark.parametrize("path", ["/nothing", f"/download/{UNKNOWN}", "/download/x", f"/download/{UNKNOWN}/name?x=1"])
def test_what_is_not_there_is_a_page_in_a_browser_and_json_otherwise(path: str) -> None:
    for accept in ("*/*", "application/json"):
        plain = Client().get(path, headers={"Accept": accept})
        assert_problem(plain, plain.status_code)
        assert "Accept" not in plain.headers.get("Vary", ""), "JSON answers are as they were"
    response = Client().get(path, headers=BROWSER)
    shown = Page(response)
    assert response.status_code == plain.status_code
    assert plain.json()["detail"] in shown.text
    assert shown.title == f"{plain.json()['title']} – OCC Storage"
    assert "/files" in shown.links
    assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("no-store", "Accept")


def test_a_browser_is_asked_for_a_key(keys_on: ClusterUnderTest) -> None:
    for path in ("/upload", "/nothing", f"/download/{UNKNOWN}"):
        response = WholeClient().get(path, headers=BROWSER)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Basic")
        assert Page(response).all("form") == []
        assert WholeClient().get(path, headers={**BROWSER, **bearer("ann")}).status_code in (200, 404)
    assert WholeClient().get("/favicon.ico").status_code == 302


def test_json_ends_with_a_line_break(paths: list[str]) -> None:
    for path in (*paths, "/nothing", f"/download/{UNKNOWN}"):
        response = WholeClient().get(path)
        assert re.fullmatch(rb"\S.*\}\n", response.content, re.DOTALL), path
        assert response.headers["Content-Length"] == str(len(response.content))
