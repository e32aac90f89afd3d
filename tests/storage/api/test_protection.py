"""The header fields that protect browsers are in every answer, also in answers that gunicorn or nginx gives without
Django.
"""

from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from structlog.testing import capture_logs

from occsite.server.gunicorn_worker import write_problem
from storage.accounts import rates
from storage.api.wsgi.protection import DATA, PAGE, PROTECTION
from storage.conf import Configuration
from storage.exceptions import ConfigurationError
from storage.models import Node
from storage.services import share
from tests.support.api import WholeClient
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import bearer, keys_on

__all__ = ["keys_on"]

NGINX = Path(__file__).resolve().parents[3] / "nginx"
HTML = {"Accept": "text/html"}

# A name → method, path, status, whether the answer is a page, header fields of the request.
DOORS: dict[str, tuple[str, str, int, bool, Mapping[str, str]]] = {
    "JSON": ("GET", "/files", 200, False, {}),
    "a question of a browser": ("OPTIONS", "/files", 200, False, {}),
    "an answer without a body": ("HEAD", "/files", 200, False, {}),
    "a page": ("GET", "/files", 200, True, HTML),
    "the start page": ("GET", "/", 200, True, HTML),
    "health": ("GET", "/health", 200, False, {}),
    "a download past Django": ("GET", "/download/{hash}", 200, False, {}),
    "a download of a part": ("GET", "/download/{hash}", 206, False, {"Range": "bytes=1-2"}),
    "a download that is known": ("GET", "/download/{hash}", 304, False, {"If-None-Match": '"{hash}"'}),
    "a missing download": ("GET", "/download/{missing}", 404, False, {}),
    "a page of a missing download": ("GET", "/download/{missing}", 404, True, HTML),
    "a share link": ("GET", "{link}", 200, False, {}),
    "a missing address": ("GET", "/nothing", 404, False, {}),
    "a page of a missing address": ("GET", "/nothing", 404, True, HTML),
    "too many slashes": ("GET", "/files/", 301, True, {}),
    "another host": ("GET", "/files", 400, False, {"Host": "other.example"}),
    "a path that is not UTF-8": ("GET", "/files/%FF", 400, False, {}),
    "a method that is not there": ("TRACE", "/files", 405, False, {}),
    "the administration": ("GET", "/admin/login/", 200, True, {}),
    "the administration, logged out": ("GET", "/admin/", 302, True, {}),
    "a file of the pages": ("GET", "/static/occ/pages.css", 200, False, {}),
    "robots": ("GET", "/robots.txt", 200, False, {}),
    "security.txt": ("GET", "/.well-known/security.txt", 200, False, {}),
}


@pytest.fixture
def places(cluster: ClusterUnderTest, settings: Any) -> dict[str, str]:
    """A cluster with a file and a link to it: the addresses of both."""
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.OCC = dataclasses.replace(settings.OCC, security_contact="mailto:security@example.org")
    file = cluster.upload(b"bytes")
    link = share.share(file, 60)
    return {"hash": file.content.file_hash, "missing": "0" * 64, "link": f"/share/{share.token_of(link)}"}


def ask(method: str, path: str, headers: Mapping[str, str], places: Mapping[str, str] = {}, **environ: Any) -> Any:
    told = {name: value.replace("{hash}", places.get("hash", "")) for name, value in headers.items()}
    environ["HTTP_HOST"] = told.pop("Host", "testserver")
    return WholeClient().generic(method, path.format(**places), headers=told, **environ)


def assert_protected(fields: Mapping[str, str], *, is_page: bool) -> None:
    found = {name.lower(): value for name, value in fields.items()}
    wanted = {**PROTECTION, "Content-Security-Policy": PAGE if is_page else DATA}
    assert {name: found.get(name.lower()) for name in wanted} == wanted


@pytest.mark.parametrize("door", DOORS)
def test_every_answer_is_protected(places: dict[str, str], door: str) -> None:
    method, path, status, is_page, headers = DOORS[door]
    answer = ask(method, path, headers, places)
    assert answer.status_code == status, answer
    fields = dict(answer.headers)
    if door == "a share link":
        assert fields.pop("Cross-Origin-Resource-Policy") == "cross-origin", "it is made to be given to others"
        fields["Cross-Origin-Resource-Policy"] = "same-origin"
    assert_protected(fields, is_page=is_page)
    assert "Strict-Transport-Security" not in fields


def test_over_tls_browsers_are_told_to_stay_there_if_the_operator_says_so(
    places: dict[str, str], settings: Any
) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, hsts_seconds=86400)
    for method, path, _, _, headers in DOORS.values():
        over_tls = ask(method, path, headers, places, **{"wsgi.url_scheme": "https"})
        assert over_tls.headers["Strict-Transport-Security"] == "max-age=86400", path
        assert "Strict-Transport-Security" not in ask(method, path, headers, places).headers, path


def test_a_refusal_without_a_key_is_protected(places: dict[str, str], keys_on: ClusterUnderTest) -> None:
    for headers in ({}, HTML, {"Authorization": "Bearer x:y"}):
        answer = ask("GET", "/files", headers, places)
        assert answer.status_code == 401
        assert_protected(answer.headers, is_page=headers == HTML)


def test_where_keys_are_on_no_shared_cache_keeps_an_answer(places: dict[str, str], keys_on: ClusterUnderTest) -> None:
    ann = bearer("ann")
    for door, (method, path, _, _, headers) in DOORS.items():
        for key in ({}, ann):
            told = ask(method, path, {**headers, **key}, places).headers["Cache-Control"].split(", ")
            assert told.count("private") == (door != "a file of the pages"), door
            assert told[0] == "private" or "public" in told, door
    without_a_key = ("/docs", "/schema", "/livez", "/static/nothing", "/favicon.ico", "/console/login/")
    for path in (*without_a_key, "/version", "/verify/{hash}"):
        assert ask("GET", path, {}, places).headers["Cache-Control"].split(", ")[0] == "private", path


def test_while_keys_are_off_answers_are_for_every_cache(places: dict[str, str]) -> None:
    assert "Cache-Control" not in ask("GET", "/files", {}).headers
    assert ask("GET", "{link}", {}, places).headers["Cache-Control"] == "no-cache"


def test_too_many_requests_are_answered_with_protection(places: dict[str, str], settings: Any) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, rate_limit="1/hour")
    ask("GET", "/files", {})
    answer = ask("GET", "/files", {})
    assert answer.status_code == 429
    assert_protected(answer.headers, is_page=False)


def test_what_gunicorn_itself_refuses_is_protected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        write_problem(ours, 431, "", "too large")
        ours.shutdown(socket.SHUT_WR)
        head = theirs.recv(65536).decode().partition("\r\n\r\n")[0]
    assert_protected(dict(line.split(": ", 1) for line in head.splitlines()[1:]), is_page=False)


def test_nginx_gives_its_own_answers_the_same_fields() -> None:
    """``tests/containers`` asks a real nginx, but runs seldom. This test notices at once if the header fields of nginx
    differ from those of the API.
    """
    maps = dict(re.findall(r'map \S+ \$(\w+) \{ "" ("[^"]*"|\S+);', (NGINX / "nginx.conf").read_text()))
    fields = re.findall(r"^add_header (\S+) \$(\w+) always;$", (NGINX / "protection.conf").read_text(), re.MULTILINE)
    told = {name: maps[variable].strip('"') for name, variable in fields if variable in maps}
    assert told == PROTECTION
    assert ("Strict-Transport-Security", "only_tls") in fields


def test_nginx_logs_no_token_of_a_share_link_and_no_signature() -> None:
    text = (NGINX / "nginx.conf").read_text()
    patterns = re.findall(r'"~\*(\S+)" \$before\.\.\.\$after;', text)
    masks = [re.compile(re.sub(r"\(\?<(?=\w)", "(?P<", pattern), re.IGNORECASE) for pattern in patterns]
    for asked, logged in {
        "GET /share/1a.b-c/big.bin HTTP/1.1": "GET /share/.../big.bin HTTP/1.1",
        "GET /Share//1a.b-c HTTP/1.1": "GET /Share//... HTTP/1.1",
        "GET /share%2f%31a.b-c%2Fa?x=1 HTTP/1.1": "GET /share%2f...%2Fa?x=1 HTTP/1.1",
        "GET /files?share HTTP/1.1": "GET /files?share HTTP/1.1",
        "GET /bucket/key?X-Amz-Signature=12ab&x-id=1 HTTP/1.1": "GET /bucket/key?X-Amz-Signature=...&x-id=1 HTTP/1.1",
        "GET /bucket/key?Signature=1%2Bab&Expires=1 HTTP/1.1": "GET /bucket/key?Signature=...&Expires=1 HTTP/1.1",
        "GET /bucket/key?a=1&Signature=12ab HTTP/1.1": "GET /bucket/key?a=1&Signature=... HTTP/1.1",
        "GET /bucket/key?X-Amz-Signature=12ab HTTP/1.1": "GET /bucket/key?X-Amz-Signature=... HTTP/1.1",
    }.items():
        mask = next((mask for mask in masks if mask.match(asked)), None)
        assert (asked if mask is None else mask.sub(r"\g<before>...\g<after>", asked)) == logged
    assert '"request":"$asked"' in text
    assert "$request " not in text.partition("log_format")[2]


def test_pages_have_nothing_that_their_policy_forbids(places: dict[str, str]) -> None:
    for path in ("/", "/files", "/upload", "/files/{hash}", "/health", "/nothing"):
        assert_nothing_inline(ask("GET", path, HTML, places).content.decode())


def test_pages_of_the_administration_have_nothing_that_their_policy_forbids(places: dict[str, str]) -> None:
    client = WholeClient()
    client.force_login(User.objects.create_superuser("admin", "", "secret"))
    paths = ["", "storage/file/", "storage/node/", "storage/job/", "storage/key/", "storage/key/add/", "auth/user/"]
    for path in paths:
        answer = client.get(f"/admin/{path}")
        assert answer.status_code == 200, path
        assert_nothing_inline(answer.content.decode())
    client.cookies["csrftoken"] = token = "a" * 32
    chosen = [Node.objects.earliest("pk").pk]
    node = {"_selected_action": chosen, "action": "drain_nodes", "index": 0, "csrfmiddlewaretoken": token}
    assert_nothing_inline(client.post("/admin/storage/node/", node).content.decode())


def assert_nothing_inline(page: str) -> None:
    assert "<html" in page
    assert not re.search(r"""<style|<script(?![^>]*\bsrc=)|<[^>]* (style|on\w+)=["']|javascript:""", page), page


# -- security.txt ------------------------------------------------------------


def test_security_txt_names_the_contact_and_needs_no_key(places: dict[str, str], keys_on: ClusterUnderTest) -> None:
    text = ask("GET", "/.well-known/security.txt", {}).content.decode()
    assert re.fullmatch(r"Contact: mailto:security@example\.org\nExpires: \d{4}-\d\d-\d\dT00:00:00Z\n", text)


def test_without_a_contact_there_is_no_security_txt(cluster: ClusterUnderTest) -> None:
    assert ask("GET", "/.well-known/security.txt", {}).status_code == 404


@pytest.mark.parametrize("text", ["security@example.org", "mailto:a b", "mailto:a\nContact: b", "http://example.org"])
def test_a_contact_that_nobody_can_follow_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="SECURITY_CONTACT"):
        Configuration.from_environment({"SECURITY_CONTACT": text})


# -- logging in --------------------------------------------------------------


@pytest.fixture
def admin(cluster: ClusterUnderTest, settings: Any) -> User:
    """An operator whose password is ``secret``. The usual hash of a password takes a second for each attempt."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return User.objects.create_superuser("admin", "", "secret")


def log_in(
    username: str = "admin", password: str = "wrong", address: str = "192.0.2.1", query: str = "", **headers: str
) -> Any:
    client, token = WholeClient(), "a" * 32
    client.cookies["csrftoken"] = token
    form = {"username": username, "password": password, "csrfmiddlewaretoken": token}
    return client.post(f"/admin/login/{query}", form, REMOTE_ADDR=address, headers=headers)


def test_a_login_leads_to_the_administration_and_to_no_other_site(admin: User) -> None:
    for query, led in (("", "/admin/"), ("?next=//evil.example/", "/admin/"), ("?next=/admin/auth/", "/admin/auth/")):
        answer = log_in(password="secret", query=query)
        assert (answer.status_code, answer.headers["Location"]) == (302, led)


def test_a_form_without_its_token_is_refused_on_a_page_of_ours(
    places: dict[str, str], keys_on: ClusterUnderTest
) -> None:
    for headers in ({}, HTML):
        answer = ask("POST", "/admin/login/", headers)
        assert answer.status_code == 403
        assert_protected(answer.headers, is_page=bool(headers))
        assert answer.headers["Cache-Control"].startswith("private")
        if headers:
            assert_nothing_inline(answer.content.decode())
        else:
            assert (answer.json()["code"], "load its page again" in answer.json()["detail"]) == ("forbidden", True)


def test_an_address_may_try_few_passwords(admin: User) -> None:
    assert [log_in(f"name{i}").status_code for i in range(11)] == [200] * 10 + [429]
    refused = log_in(password="secret", Accept="text/html")
    assert refused.status_code == 429, "the right password is refused too"
    assert 1 <= int(refused.headers["Retry-After"]) <= 300
    assert_protected(refused.headers, is_page=True)
    assert log_in(password="secret", address="192.0.2.2").status_code == 302


def test_few_passwords_may_be_tried_for_a_name(admin: User) -> None:
    names = ["admin", "Admin", " admin", "admin\u00a0", "\uff41dmin"] * 4
    assert {log_in(name, address=f"192.0.2.{i}").status_code for i, name in enumerate(names)} == {200}
    assert log_in(password="secret", address="192.0.2.99").status_code == 429
    assert log_in("other", address="192.0.2.99").status_code == 200


def test_the_page_itself_is_not_limited(cluster: ClusterUnderTest) -> None:
    assert {WholeClient().get("/admin/login/").status_code for _ in range(30)} == {200}


def test_no_log_line_has_what_was_typed_as_a_name(admin: User) -> None:
    with capture_logs() as lines:
        for i in range(21):
            log_in("a password in the wrong field", address=f"192.0.2.{i}")
    assert "request.limited" in {line["event"] for line in lines}
    assert "wrong field" not in str(lines)


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_addresses_of_one_subscriber_count_as_one(address: str, subject: str) -> None:
    assert rates.origin(address) == subject


def test_a_subscriber_does_not_escape_the_limit_by_another_address(cluster: ClusterUnderTest, settings: Any) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, rate_limit="5/hour")
    asked = [WholeClient().get("/files", REMOTE_ADDR=f"2001:db8::{i}").status_code for i in range(1, 7)]
    assert asked == [200] * 5 + [429]
    assert WholeClient().get("/files", REMOTE_ADDR="2001:db8:0:1::1").status_code == 200
