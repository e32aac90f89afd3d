"""Every client except a browser gets errors as problem documents, also errors that no view raises."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
from django.test import Client
from rest_framework import exceptions as drf

from storage.services import catalogue
from tests.support.api import Send, WholeClient, assert_problem
from tests.support.cluster import ClusterUnderTest

HASH = "0" * 64
PATHS = {
    "/": "GET",
    "/health": "GET",
    "/status": "GET",
    "/upload": "POST",
    "/upload/": "PUT",
    "/upload/name": "PUT",
    "/files": "GET",
    f"/files/{HASH}": "GET, PATCH, DELETE",
    f"/download/{HASH}": "GET",
    f"/verify/{HASH}": "GET",
    f"/rebalance/{HASH}": "POST",
    f"/jobs/{HASH}": "GET",
}


def test_a_wrong_method_is_a_405_that_names_the_right_ones() -> None:
    all_methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "FOO")
    for (path, methods), method in product(PATHS.items(), all_methods):
        if method in methods or (method == "HEAD" and "GET" in methods) or path == "/upload/":
            continue  # Without a name, any method except PUT is redirected to /upload.
        response = Client().generic(method, path)
        assert response.status_code == 405, path
        assert set(methods.split(", ")) <= set(response.headers["Allow"].split(", "))
        if method != "HEAD":
            assert_problem(response, 405)


def test_options_describe_every_path() -> None:
    for path in PATHS:
        response = Client().options(path)
        assert response.status_code == 200
        assert response.json()["description"]


def test_an_unknown_path_is_a_404() -> None:
    paths = ("/nothing", "/nothing/", "/download/", "/%00", "/%ff", "/static/nothing")
    for path, accept in product(paths, ("*/*", "application/json, text/html")):
        assert_problem(Client().get(path, headers={"Accept": accept}), 404)


def test_a_host_that_is_not_allowed_is_a_400(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["occ.example"]
    for host in ("evil.example", "a b", "", "[::1", "\xff", "x" * 300):
        assert_problem(Client().get("/", headers={"Host": host}), 400)
    assert Client().get("/", headers={"Host": "occ.example"}).status_code == 200


def test_what_cannot_be_had_in_json_is_a_406() -> None:
    for accept in ("image/png", "application/xml", "garbage"):
        assert_problem(Client().get("/files", headers={"Accept": accept}), 406)


def test_who_asks_for_nothing_else_gets_json() -> None:
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}, {"Accept": "application/*"}):
        response = Client().get("/", headers=headers)
        assert response.headers["Content-Type"] == "application/json"


def test_a_logged_in_administrator_is_not_asked_for_a_csrf_token(workers: ClusterUnderTest, admin_user: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    file_hash = workers.upload(b"x").content.file_hash
    assert client.post(f"/rebalance/{file_hash}").status_code == 200


def test_cors_is_off_by_default_and_can_be_set(settings: Any) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    off = Client().get("/", headers=headers).headers
    assert ("Access-Control-Allow-Origin" in off, "origin" in off["Vary"]) == (False, False)
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example"]
    allowed = Client().get("/", headers=headers).headers
    assert allowed["Access-Control-Allow-Origin"] == "https://app.example"
    assert {"Location", "Content-Range", "Repr-Digest", "Undo-Location"} <= set(
        allowed["Access-Control-Expose-Headers"].split(", ")
    )
    preflight = Client().options("/upload", headers=headers).headers
    assert {"POST", "PUT"} <= set(preflight["Access-Control-Allow-Methods"].split(", "))
    assert {"range", "prefer", "repr-digest"} <= set(preflight["Access-Control-Allow-Headers"].split(", "))


def test_every_answer_says_how_a_browser_is_to_treat_it(db: None) -> None:
    for path in ("/", "/nothing", "/admin/login/"):
        headers = WholeClient().get(path).headers
        assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
        assert headers["Referrer-Policy"] == headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_a_defect_is_a_problem_document_that_hides_its_insides(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: Any, **__: Any) -> Any:
        raise KeyError("a defect")

    monkeypatch.setattr(catalogue, "find_all", defect)
    body = assert_problem(Client().get(f"/files/{HASH}"), 500)
    assert "a defect" not in body["detail"]


def test_a_throttled_client_is_told_when_to_come_back(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def throttled(*_: Any, **__: Any) -> Any:
        raise drf.Throttled(wait=6.2)

    monkeypatch.setattr(catalogue, "find_all", throttled)
    response = Client().get(f"/files/{HASH}")
    assert_problem(response, 429)
    assert response.headers["Retry-After"] == "7"


# -- the browser ------------------------------------------------------------

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def test_every_page_is_html_in_a_browser(cluster: ClusterUnderTest) -> None:
    file_hash = cluster.upload(b"x").content.file_hash
    paths = ("/", "/health", "/status", "/files", f"/files/{file_hash}", f"/verify/{file_hash}", "/upload")
    for path in paths:
        response = Client().get(path, headers=BROWSER)
        assert response.headers["Content-Type"] == "text/html; charset=utf-8", path


def test_a_browser_gets_forms_to_upload_and_rebalance(cluster: ClusterUnderTest) -> None:
    upload = Client().get("/upload", headers=BROWSER).content.decode()
    assert re.search(r'<input name="file"\s+type="file"', upload)
    assert 'name="replication_factor"' in upload
    assert 'enctype="multipart/form-data"' in upload
    file_hash = cluster.upload(b"x").content.file_hash
    rebalance = Client().get(f"/rebalance/{file_hash}", headers=BROWSER).content.decode()
    assert 'name="replication_factor"' in rebalance


def test_a_browser_shows_what_was_wrong_with_a_form(workers: ClusterUnderTest, send: Send) -> None:
    page = send(b"x", headers=BROWSER, replication_factor="77")
    assert (page.status_code, page.headers["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert "The cluster has 5 nodes." in page.content.decode()
    assert workers.staged() == []
