"""The pages of keys, share links and activity."""

from __future__ import annotations

import re

import pytest

from storage.accounts import keys
from storage.models import Key, KeyLimit, Link, Scope
from tests.support.api import WholeClient
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.console import Browser, Page, seen
from tests.support.keys import keys_on, owner

__all__ = ["keys_on"]

PASSWORD = "a long password"


def logged_in(name: str, *, is_staff: bool = False) -> Browser:
    user = owner(name)
    user.set_password(PASSWORD)
    user.is_staff = user.is_superuser = is_staff
    user.save()
    browser = Browser()
    browser.open("/console/login")
    browser.submit("/console/login", 302, username=name, password=PASSWORD)
    return browser


@pytest.fixture
def ann(workers: ClusterUnderTest, keys_on: ClusterUnderTest) -> Browser:
    return logged_in("ann")


def test_a_key_is_made_and_its_secret_shown_once(ann: Browser) -> None:
    page = ann.open("/console/keys")
    assert "Operate the whole installation" not in page
    answer = ann.submit("/console/keys", 200, name="backup", scopes=["read", "write"], expires_in="604800")
    page = answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"]
    key_id, secret = re.search(r"<code>(OCC\w{17})</code>.*?<code>(\w{40})</code>", page, re.DOTALL).groups()  # type: ignore[union-attr]
    found = WholeClient().get("/account", headers={"Authorization": f"Bearer {key_id}:{secret}"}).json()
    assert (found["owner"], found["scopes"]) == ("ann", ["read", "write"])
    page = ann.open("/console/keys")
    assert secret not in page
    assert "backup" in page
    assert "in 7 days" in page
    assert "Some of read" in ann.submit("/console/keys", 200, name="none").content.decode()


def test_a_key_of_one_bucket_says_so(ann: Browser) -> None:
    keys.create(owner("ann"), scopes=[Scope.READ], limit=KeyLimit("backups", "2026/"))
    assert "only in <bdi>backups/2026/</bdi>" in ann.open("/console/keys")
    Key.objects.update(prefix="")
    assert "only in <bdi>backups/</bdi>" in ann.open("/console/keys")


def test_a_key_gets_a_new_secret_and_is_revoked(ann: Browser) -> None:
    ann.open("/console/keys")
    ann.submit("/console/keys", 200, name="backup", scopes=["read"])
    key = Key.objects.get()
    ann.open(f"/console/keys/{key.pk}/rotate")
    assert re.search(r"<code>\w{40}</code>", ann.submit(f"/console/keys/{key.pk}/rotate", 200).content.decode())
    ann.open(f"/console/keys/{key.pk}/revoke")
    ann.submit(f"/console/keys/{key.pk}/revoke")
    assert "opens nothing any more" in ann.open("/console/keys")
    ann.open(f"/console/keys/{key.pk}/explode", 404)
    ann.submit(f"/console/keys/{key.pk}/revoke")
    assert "did not change" in ann.open("/console/keys")


def test_keys_of_others_are_for_admins(ann: Browser) -> None:
    ann.open("/console/keys")
    ann.submit("/console/keys", 200, name="anns", scopes=["read"])
    assert "anns" not in logged_in("ben").open("/console/keys")
    page = logged_in("root", is_staff=True).open("/console/keys")
    assert "of ann" in seen(page)
    assert "Operate the whole installation" in page


def test_while_keys_are_off_there_are_none(workers: ClusterUnderTest, page: Page) -> None:
    assert "keys are off" in page("/console/keys")
    assert "/console/keys" not in page("/console/health")


def test_share_links_are_listed_and_revoked(workers: ClusterUnderTest) -> None:
    browser = Browser()
    assert "No file is shared" in browser.open("/console/links")
    file = workers.upload(content_of(1), "a b.txt")
    browser.post(f"/files/{file.content.file_hash}/links")
    assert "a b.txt" in browser.open("/console/links")
    browser.submit("/console/links", revoke=str(Link.objects.get().pk))
    assert "The link is revoked" in browser.open("/console/links")
    browser.submit("/console/links", revoke="../nodes")
    assert "did not change" in browser.open("/console/links")


def test_the_activity_is_in_sentences_and_can_be_chosen(workers: ClusterUnderTest) -> None:
    browser = Browser()
    assert "Nothing of this kind was done yet" in browser.open("/console/activity")
    for number in range(51):
        browser.put(f"/upload/{number}.txt", str(number).encode(), content_type="application/octet-stream")
    (found,) = browser.get("/files?limit=1").json()["files"]
    browser.patch(f"/files/{found['file_hash']}", {"file_name": "new.txt"}, content_type="application/json")
    text = browser.open("/console/activity")
    assert f"nobody renamed {found['file_name']} to “new.txt”" in seen(text)
    assert text.count("<tr>") == 51
    earlier = re.search(r'href="(\?[^"]*cursor=[^"]*)">Earlier', text)
    assert earlier is not None
    assert browser.open(f"/console/activity{earlier[1].replace('&amp;', '&')}").count("<tr>") == 3
    assert "renamed" not in seen(browser.open("/console/activity?action=upload")).partition("When Who What")[2]
    assert "Nothing of this kind was done." in browser.open("/console/activity?action=delete")
