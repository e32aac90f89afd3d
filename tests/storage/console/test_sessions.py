"""Who sees the console, who logs in, and what a session may do at the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from django.contrib.auth.models import User

from storage.accounts import rates, sessions
from storage.models import File, Scope
from tests.support.api import assert_nothing_left, assert_problem
from tests.support.cluster import ClusterUnderTest
from tests.support.console import BROWSER, OWN_PAGE, Browser, Page, seen
from tests.support.keys import bearer

PASSWORD = "correct horse"


@pytest.fixture
def ann(workers: ClusterUnderTest, keys_on: ClusterUnderTest) -> User:
    return User.objects.create_user("ann", password=PASSWORD)


def logged_in(user: User) -> Browser:
    browser = Browser()
    browser.force_login(user)
    return browser


def put(browser: Browser, **headers: str) -> Any:
    return browser.put("/upload/own.txt", b"bytes", content_type="text/plain", headers=headers)


def test_without_keys_everyone_is_nobody_and_nobody_logs_in(page: Page) -> None:
    assert "Log out" not in page("/")
    assert Browser().get("/console/login", headers=BROWSER).headers["Location"] == "/"


def test_a_browser_without_a_session_is_led_to_the_login_and_back(ann: User) -> None:
    browser = Browser()
    asked = browser.get("/console/health?x=1", headers=BROWSER)
    assert (asked.status_code, asked.headers["Location"]) == (302, "/console/login?next=%2Fconsole%2Fhealth%3Fx%3D1")
    assert "Log in" in browser.open(asked.headers["Location"])
    refused = browser.submit("/console/login", 200, username="ann", password="wrong")
    assert "do not belong together" in refused.content.decode()
    entered = browser.submit("/console/login", 302, username="ann", password=PASSWORD, next="/console/health?x=1")
    assert entered.headers["Location"] == "/console/health?x=1"
    assert "ann" in seen(browser.open("/"))
    browser.submit("/console/logout", 302)
    assert browser.get("/", headers=BROWSER).status_code == 302
    assert browser.get("/files").status_code == 401, "the session is over at the API too"


@pytest.mark.parametrize(
    "address", ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_a_login_leads_to_no_other_site(ann: User, address: str) -> None:
    browser = Browser()
    browser.open("/console/login")
    entered = browser.submit("/console/login", 302, username="ann", password=PASSWORD, next=address)
    assert entered.headers["Location"] == "/"
    browser.open("/")
    assert browser.submit("/console/delete", back=address).headers["Location"] == "/"


def test_attempts_to_log_in_are_limited(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "LOGINS_OF_ADDRESS", "3/5 minutes")
    browser = Browser()
    browser.open("/console/login")
    for _ in range(3):
        browser.submit("/console/login", 200, username="ann", password="wrong")
    late = browser.submit("/console/login", 429, username="ann", password=PASSWORD)
    assert int(late.headers["Retry-After"]) >= 1
    assert "Too many attempts" in late.content.decode()
    assert browser.get("/", headers=BROWSER).status_code == 302


def test_spellings_of_a_name_share_its_attempts(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "LOGINS_OF_NAME", "3/5 minutes")
    browser = Browser()
    browser.open("/console/login")
    fields = {"csrfmiddlewaretoken": browser.token, "password": "wrong"}
    for number in range(3):
        name = ("ann", "ANN", "\uff41nn")[number % 3]  # The last name begins with a wide letter.
        address = f"192.0.2.{number}"
        answer = browser.post("/console/login", {**fields, "username": name}, headers=OWN_PAGE, REMOTE_ADDR=address)
        assert answer.status_code == 200
    late = {**fields, "username": "ann"}
    refused = browser.post("/console/login", late, headers=OWN_PAGE, REMOTE_ADDR="192.0.2.99")
    assert refused.status_code == 429


def test_forms_need_their_token(ann: User) -> None:
    browser = logged_in(ann)
    for address in ("/console/delete", "/console/logout", "/console/login"):
        assert browser.post(address, {"item": "x", "sure": "yes"}, headers=OWN_PAGE).status_code == 403, address


def test_a_session_reads_at_the_api_and_changes_only_from_pages_of_ours(ann: User) -> None:
    browser = logged_in(ann)
    assert browser.get("/files").json()["total_files"] == 0
    for foreign in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert assert_problem(put(browser, **foreign), 403)["code"] == "forbidden"
    assert File.objects.count() == 0
    assert put(browser, Origin="http://testserver").status_code == 201
    assert put(browser, **{"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_a_session_has_the_scopes_of_its_user(ann: User) -> None:
    assert_problem(logged_in(ann).get("/status"), 403)
    assert "For admins" not in (text := seen(logged_in(ann).open("/console/health")))
    assert "Nodes" not in text
    assert "this page is for admins" in seen(logged_in(ann).open("/console/nodes", 403))
    ann.is_staff = True
    ann.save()
    assert logged_in(ann).get("/status").status_code == 200
    assert "node_000" in logged_in(ann).open("/console/nodes")
    ann.is_active = False
    ann.save()
    assert logged_in(ann).get("/files").status_code == 401


def test_a_page_reads_its_session_once(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, user_of = logged_in(ann), sessions.user_of
    read: list[Mapping[str, Any]] = []

    def reading(environ: Mapping[str, Any]) -> User | None:
        read.append(environ)
        return user_of(environ)

    monkeypatch.setattr(sessions, "user_of", reading)
    browser.open("/console/health")
    browser.open("/")
    assert len(read) == 2


def test_the_session_ends_with_the_password(ann: User) -> None:
    browser = logged_in(ann)
    ann.set_password("another one")
    ann.save()
    assert browser.get("/files").status_code == 401


def test_a_script_of_the_console_is_not_answered_by_the_dialogue_of_a_browser(ann: User) -> None:
    refused = Browser().get("/files", headers={"X-Requested-With": "console"})
    assert refused.status_code == 401
    assert "Basic" not in refused.headers["WWW-Authenticate"]


def test_files_of_other_owners_never_show(ann: User) -> None:
    theirs = Browser().put("/upload/secret.txt", b"of bob", content_type="text/plain", headers=bearer("bob")).json()
    browser, file_hash = logged_in(ann), theirs["file_hash"]
    assert "secret.txt" not in browser.open("/") + browser.open("/?q=secret")
    for address in ("", "/copies", "/rename", "/share"):
        assert "secret.txt" not in browser.open(f"/console/file/{file_hash}{address}", 404)
    assert browser.get(f"/console/file/{file_hash}/preview", headers=BROWSER).status_code == 404
    browser.open(f"/console/delete?item={file_hash}/secret.txt")
    answer = browser.submit("/console/delete", item=f"{file_hash}/secret.txt", sure="yes")
    assert "could not be deleted" in seen(browser.open(answer.headers["Location"]))
    assert File.objects.filter(name="secret.txt").exists()


def test_jobs_of_other_owners_never_show(ann: User) -> None:
    for name in ("ann", "bob"):
        data = f"of {name}".encode()
        Browser().put(f"/upload/{name}.txt", data, content_type="text/plain", headers=bearer(name))
    browser = logged_in(ann)
    (job,) = browser.get("/jobs").json()["jobs"]
    assert "ann.txt" in (text := browser.open("/console/jobs"))
    assert "bob.txt" not in text
    assert job["id"] in text
    everything = Browser().get("/jobs", headers=bearer("carl", [Scope.READ, Scope.ADMIN])).json()["jobs"]
    assert len(everything) == 2


def test_a_form_of_another_site_uploads_nothing_even_without_keys(workers: ClusterUnderTest) -> None:
    for headers in (BROWSER, {**BROWSER, "Origin": "https://evil.example"}):
        assert Browser().post("/console/upload", {"file": b"bytes"}, headers=headers).status_code == 403
    assert_nothing_left(workers)
