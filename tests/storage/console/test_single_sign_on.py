"""Logging in with an OpenID provider, which is a real one on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from oidc_provider_mock import User as Person
from oidc_provider_mock import run_server_in_thread

from storage.accounts import rates
from storage.accounts.identities import user_of
from storage.conf import Configuration, Provider
from storage.console import single_sign_on
from storage.exceptions import ConfigurationError
from storage.models import Identity
from tests.support.cluster import ClusterUnderTest
from tests.support.console import BROWSER, Browser, seen

BEGIN = "/console/single-sign-on"
Login = Callable[..., Browser]


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    people = [
        Person(sub="1001", claims={"preferred_username": "ann", "email": "ann@example.org"}),
        Person(sub="1002", claims={"preferred_username": "ann"}),
    ]
    with run_server_in_thread(user_claims=people, require_nonce=True) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def provider(workers: ClusterUnderTest, keys_on: ClusterUnderTest, settings: Any, issuer: str) -> Iterator[Provider]:
    single_sign_on._client.cache_clear()
    provider = Provider(issuer, "occ", "secret", "")
    settings.OCC = dataclasses.replace(settings.OCC, provider=provider)
    yield provider
    single_sign_on._client.cache_clear()


def allowed(location: str, subject: str) -> str:
    """The address to which the provider sends the browser of a person who allows the login."""
    answer = requests.post(location, data={"sub": subject}, allow_redirects=False, timeout=10)
    assert answer.status_code == 302, answer.text
    back = urlsplit(answer.headers["Location"])
    assert back.path == f"{BEGIN}/return"
    return f"{back.path}?{back.query}"


def log_in(subject: str, target: str = "/console/jobs") -> Browser:
    browser = Browser()
    begun = browser.get(BEGIN, {"next": target}, headers=BROWSER)
    assert begun.status_code == 302
    entered = browser.get(allowed(begun.headers["Location"], subject), headers=BROWSER)
    assert entered.status_code == 302, entered.content
    assert entered.headers["Location"] == (target if target.startswith("/console/") else "/")
    return browser


def test_a_person_is_led_to_the_provider_and_back_and_is_the_same_user_each_time(provider: Provider) -> None:
    page = Browser().open("/console/login?next=/console/jobs")
    assert f'href="{BEGIN}?next=/console/jobs"' in page
    assert "Log in with 127.0.0.1" in seen(page)
    first, second = log_in("1001"), log_in("1001")
    assert first.put("/upload/a", b"bytes", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 201
    assert [file["file_name"] for file in second.get("/files").json()["files"]] == ["a"]
    user = User.objects.get(identities__subject="1001")
    assert (user.username, user.is_staff, user.has_usable_password()) == ("ann", False, False)
    assert "ann" in seen(first.open("/"))


def test_the_name_of_somebody_else_opens_nothing_of_theirs(provider: Provider) -> None:
    local = User.objects.create_user("Ann", password="correct horse")
    names = {log_in(subject) and Identity.objects.get(subject=subject).user.username for subject in ("1001", "1002")}
    assert names == {"ann-2", "ann-3"}
    assert not local.identities.exists()


def test_a_login_that_was_begun_makes_no_other_session_shorter(provider: Provider, settings: Any) -> None:
    """A person may turn back at the provider and use the password, or open the address while logged in."""
    User.objects.create_user("bob", password="correct horse")
    browser = Browser()
    for _ in range(2):
        assert browser.get(BEGIN, headers=BROWSER).status_code == 302
        browser.open("/console/login")
        browser.submit("/console/login", 302, username="bob", password="correct horse")
        assert browser.session.get_expiry_age() == settings.SESSION_COOKIE_AGE
    assert browser.get(BEGIN, headers=BROWSER).status_code == 302
    assert browser.session.get_expiry_age() == settings.SESSION_COOKIE_AGE


def test_a_login_leads_to_no_other_site(provider: Provider) -> None:
    log_in("1001", "https://evil.example/")
    log_in("1001", "//evil.example/")


def assert_refused(browser: Browser, address: str) -> None:
    page = browser.open(address, 403)
    assert "did not log you in" in seen(page)
    assert browser.get("/files").status_code == 401


def test_an_answer_that_this_browser_has_not_asked_for_is_refused(provider: Provider) -> None:
    theirs = Browser().get(BEGIN, headers=BROWSER).headers["Location"]
    answer = allowed(theirs, "1001")
    assert_refused(Browser(), answer)
    assert_refused(Browser(), f"{BEGIN}/return?error=access_denied&state=x")
    assert_refused(Browser(), f"{BEGIN}/return")
    assert not Identity.objects.exists()


def test_an_answer_counts_once(provider: Provider) -> None:
    browser = Browser()
    answer = allowed(browser.get(BEGIN, headers=BROWSER).headers["Location"], "1001")
    assert browser.get(answer, headers=BROWSER).status_code == 302
    assert browser.get(answer, headers=BROWSER).status_code == 403


def test_a_token_of_another_issuer_is_refused(provider: Provider, settings: Any) -> None:
    other = dataclasses.replace(provider, issuer=provider.issuer.replace("127.0.0.1", "localhost"))
    settings.OCC = dataclasses.replace(settings.OCC, provider=other)
    client = single_sign_on._client(other)
    client._server_metadata_url = f"{provider.issuer}/.well-known/openid-configuration"
    browser = Browser()
    answer = allowed(browser.get(BEGIN, headers=BROWSER).headers["Location"], "1001")
    assert_refused(browser, answer)


def test_the_userinfo_endpoint_speaks_of_the_same_subject_and_changes_no_claim(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"sub": "1001", "iss": "https://login.example"}
    monkeypatch.setattr(single_sign_on._client(provider), "userinfo", lambda **_: answers)
    log_in("1001")
    assert Identity.objects.get().issuer == provider.issuer
    browser = Browser()
    answer = allowed(browser.get(BEGIN, headers=BROWSER).headers["Location"], "1002")
    assert_refused(browser, answer)


def test_while_the_provider_is_away_the_page_says_so(provider: Provider, settings: Any) -> None:
    away = dataclasses.replace(provider, issuer="http://127.0.0.1:9")
    settings.OCC = dataclasses.replace(settings.OCC, provider=away)
    assert_refused(Browser(), BEGIN)


def test_a_user_who_was_deactivated_is_refused(provider: Provider) -> None:
    log_in("1001")
    User.objects.filter(identities__subject="1001").update(is_active=False)
    browser = Browser()
    assert_refused(browser, allowed(browser.get(BEGIN, headers=BROWSER).headers["Location"], "1001"))


def test_steps_are_limited(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SIGN_ONS_OF_ADDRESS", "2/5 minutes")
    assert [Browser().get(BEGIN, headers=BROWSER).status_code for _ in range(3)] == [302, 302, 429]
    assert Session.objects.count() == 2


def test_without_a_provider_there_is_no_such_page(workers: ClusterUnderTest, keys_on: ClusterUnderTest) -> None:
    assert Browser().get(BEGIN, headers=BROWSER).status_code == 404
    assert "Log in with" not in Browser().open("/console/login")


@pytest.mark.django_db
def test_the_group_of_admins_decides_at_each_login() -> None:
    claims = {"iss": "https://login.example", "sub": "1", "preferred_username": "ann", "groups": ["staff", "ops"]}
    ann = user_of(claims, "ops")
    assert (ann.is_staff, ann.is_superuser) == (True, True)
    assert not user_of({**claims, "groups": ["staff"]}, "ops").is_staff
    assert not user_of({**claims, "groups": "ops"}, "ops").is_staff, "this is no list"
    User.objects.update(is_staff=True)
    assert user_of({**claims, "groups": []}, "").is_staff, "admins are made by hand"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"preferred_username": "  "}, "user"),
        ({"preferred_username": "nobody", "email": "n@example.org"}, "n@example.org"),
        ({"preferred_username": "a\u202eb\n" + "c" * 200}, "ab" + "c" * 148),
    ],
)
def test_a_user_gets_a_name_that_can_be_shown(claims: dict[str, str], name: str) -> None:
    assert user_of({"iss": "https://login.example", "sub": "1", **claims}, "").username == name


@pytest.mark.parametrize(
    "variables",
    [
        {"OIDC_ISSUER": "http://login.example"},
        {"OIDC_ISSUER": "login.example"},
        {"OIDC_ISSUER": "https://login.example", "OIDC_CLIENT_ID": "occ"},
        {"OIDC_ISSUER": "https://login.example", "OIDC_CLIENT_SECRET": "secret"},
    ],
)
def test_half_a_configuration_is_refused(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="OIDC_ISSUER"):
        Configuration.from_environment(variables)
