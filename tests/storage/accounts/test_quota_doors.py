"""Quotas as clients, operators and owners see them: answers, sizes, the command and the admin pages."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils.html import strip_tags

from storage.accounts import quotas
from storage.exceptions import ByteQuotaExceeded, InvalidRequest
from storage.models import File, Quota, Scope, Usage
from storage.services.intake import Reception
from tests.support.api import Send, assert_nothing_left, assert_problem, send, workers
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import bearer, keys_on, owner
from tests.support.quotas import accept, limited

__all__ = ["keys_on", "send", "workers"]


def run(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


# -- the accounts ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("500", 500),
        ("9007199254740993", 9007199254740993),
        ("10GB", 10**10),
        ("10 gb", 10**10),
        ("1.5KiB", 1536),
        ("2TiB", 2 << 40),
        ("none", None),
    ],
)
def test_sizes_are_read_as_they_are_written(text: str, value: int | None) -> None:
    assert quotas.parse(text, "bytes") == value


@pytest.mark.parametrize(
    "text", ["", "-1", "GB", "1e3", "10 G B", "10XB", "1,5GB", "1.5", "1.0001KB", "9999999PB", "٣"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        quotas.parse(text, "bytes")


def test_the_accounts_of_all_owners(cluster: ClusterUnderTest) -> None:
    ann, bob = limited(owner("ann"), max_files=7), owner("bob")
    owner("eve")
    accept(bob, b"x" * 1000)
    found = [(account.owner, account.used, account.max_files) for account in quotas.accounts()]
    assert found == [(ann, Usage(0, 0), 7), (bob, Usage(1, 1000), None)]
    limited(ann)
    assert not Quota.objects.exists()


# -- the doors ---------------------------------------------------------------


@pytest.fixture
def served(workers: ClusterUnderTest, keys_on: ClusterUnderTest) -> ClusterUnderTest:
    return workers


def test_the_answer_says_quota_used_and_asked(served: ClusterUnderTest, send: Send) -> None:
    ann = bearer("ann")
    limited(owner("ann"), max_bytes=10_000)
    assert send(b"x" * 9000, "a", ann).status_code == 201
    assert send(b"x" * 9000, "a", ann).status_code == 200
    form = send(b"y" * 1001, "b", ann)
    raw = Client().put("/upload/b", b"y" * 1001, headers=ann)
    for response in (form, raw, send(b"x" * 9000, "b", ann)):
        problem = assert_problem(response, 507)
        assert problem["code"] == "byte_quota_exceeded"
        assert "10000 bytes" in problem["detail"]
        assert "9000 are used" in problem["detail"]
    assert send(b"y" * 1000, "b", ann).status_code == 201
    limited(owner("ann"), max_files=2)
    problem = assert_problem(send(b"", "c", ann), 507)
    assert problem["code"] == "file_quota_exceeded"
    assert "quota is 2 files, 2 are stored" in problem["detail"]
    assert File.objects.count() == 2
    assert served.staged() == []


def test_a_chunked_body_is_stopped_while_it_arrives(served: ClusterUnderTest) -> None:
    limited(owner("ann"), max_bytes=1 << 20)

    class Endless:
        given = 0

        def read(self, size: int) -> bytes:
            self.given += size
            return b"x" * size

        readline = read

    body = Endless()
    environ: dict[str, Any] = {"wsgi.input": body, "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    response = Client().generic("PUT", "/upload/a", headers=bearer("ann"), **environ)
    assert assert_problem(response, 507)["code"] == "byte_quota_exceeded"
    assert body.given <= 2 << 20
    assert_nothing_left(served)


def test_an_owner_sees_the_own_account(served: ClusterUnderTest, send: Send) -> None:
    ann, bob = bearer("ann"), bearer("bob", [Scope.READ])
    assert send(b"x" * 1000, "a", ann).status_code == 201
    limited(owner("ann"), max_bytes=10_000)
    assert Client().get("/account", headers=ann).json() == {
        "owner": "ann",
        "scopes": ["delete", "read", "write"],
        "used": {"files": 1, "bytes": 1000},
        "quota": {"files": None, "bytes": 10_000},
    }
    assert Client().get("/account", headers=bob).json() == {
        "owner": "bob",
        "scopes": ["read"],
        "used": {"files": 0, "bytes": 0},
        "quota": {"files": None, "bytes": None},
    }


def test_while_keys_are_off_nobody_may_have_a_quota(workers: ClusterUnderTest, send: Send) -> None:
    run("quota", "nobody", "--files", "1")
    assert send(b"1", "a").status_code == 201
    assert_problem(send(b"2", "b"), 507)
    account = Client().get("/account").json()
    assert (account["owner"], account["used"]["files"], account["quota"]["files"]) == ("nobody", 1, 1)


def test_the_command_shows_and_changes_quotas(cluster: ClusterUnderTest) -> None:
    ann = owner("ann")
    accept(ann, b"x" * 2048)
    accept(owner("bob"), b"y")
    assert run("quota", "ann", "--bytes", "10GiB").splitlines() == [
        "owner  files  at most    bytes   at most",
        "ann        1        -  2.0 KiB  10.0 GiB",
    ]
    run("quota", "ann", "--files", "5")
    assert (Quota.objects.get().max_bytes, Quota.objects.get().max_files) == (10 << 30, 5)
    assert [line.split()[0] for line in run("quota").splitlines()] == ["owner", "ann", "bob"]
    run("quota", "ann", "--bytes", "none")
    assert (Quota.objects.get().max_bytes, Quota.objects.get().max_files) == (None, 5)
    run("quota", "ann", "--none")
    assert not Quota.objects.exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["eve"], "there is no user eve"),
        (["--files", "3"], "whose quota"),
        (["ann", "--bytes", "much"], "is not like"),
        (["ann", "--files=-3"], "is not like"),
        (["ann", "--files", "3", "--none"], "alone"),
    ],
)
def test_the_command_says_what_it_cannot_do(cluster: ClusterUnderTest, words: list[str], complaint: str) -> None:
    owner("ann")
    with pytest.raises(CommandError, match=complaint):
        run("quota", *words)
    assert not Quota.objects.exists()


def test_the_admin_pages_show_and_change_quotas(cluster: ClusterUnderTest) -> None:
    ann = owner("ann")
    accept(ann, b"x" * 2048)
    admin = Client()
    admin.force_login(User.objects.create_superuser("root"))
    form = {"owner": ann.pk, "max_bytes": "1GB", "max_files": ""}
    assert admin.post("/admin/storage/quota/add/", form).status_code == 302
    assert Quota.objects.get().max_bytes == 10**9
    with pytest.raises(ByteQuotaExceeded):
        Reception(ann, declared_size=10**9, name="b")
    page = strip_tags(admin.get("/admin/storage/quota/").content.decode())
    assert all(text in page for text in ("ann", "2.0 KiB", "953.7 MiB", "no limit"))
    assert "is not like" in admin.post(f"/admin/storage/quota/{ann.pk}/change/", {"max_bytes": "much"}).content.decode()
    assert admin.post(f"/admin/storage/quota/{ann.pk}/change/", {"max_files": "3"}).status_code == 302
    assert (Quota.objects.get().max_bytes, Quota.objects.get().max_files) == (None, 3)
    admin.post("/admin/storage/quota/", {"action": "delete_selected", "_selected_action": ann.pk, "post": "yes"})
    assert not Quota.objects.exists()
    accept(ann, b"y", "b")
