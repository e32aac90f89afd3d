"""Keys on the command line and in the administration."""

from __future__ import annotations

import re
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from storage.accounts.principals import Principal, identify
from storage.exceptions import Unauthenticated
from storage.models import File, Key, KeyLimit, Scope, clock
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import keys_on, owner

__all__ = ["keys_on"]


def run(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def shown(text: str) -> Principal:
    """The principal whose key and secret the text shows."""
    found = re.search(r"(OCC[A-Z0-9]{17})(?:\W+secret\W+|</code></td><td><code>)([A-Za-z0-9]{40})\b", text)
    assert found, text
    return identify({"HTTP_AUTHORIZATION": f"Bearer {found[1]}:{found[2]}"})


def test_a_key_is_created_for_a_user_who_is_made_for_it(keys_on: ClusterUnderTest) -> None:
    principal = shown(run("keys", "create", "ann", "--name", "backup"))
    assert principal.owner == User.objects.get(username="ann")
    assert principal.scopes == {Scope.READ, Scope.WRITE, Scope.DELETE}
    assert not User.objects.get(username="ann").has_usable_password()
    assert shown(run("keys", "create", "ann", "--scope", "read", "--scope", "admin")).scopes == {
        Scope.READ,
        Scope.ADMIN,
    }
    assert User.objects.filter(username="ann").count() == 1


def test_a_key_may_expire(keys_on: ClusterUnderTest) -> None:
    run("keys", "create", "ann", "--days", "2")
    expires_at = Key.objects.get().expires_at
    assert expires_at is not None
    assert timedelta(days=1.9) < expires_at - clock.now() <= timedelta(days=2)
    for days in ("0", "-1", "40000"):
        with pytest.raises(CommandError, match="--days"):
            run("keys", "create", "ann", "--days", days)


def test_a_key_for_a_part_of_a_bucket(keys_on: ClusterUnderTest) -> None:
    run("keys", "create", "ann", "--bucket", "backups", "--prefix", "host/")
    assert Key.objects.get().limit == KeyLimit("backups", "host/")
    assert "backups/host/" in run("keys", "list")
    with pytest.raises(CommandError):
        run("keys", "create", "ann", "--prefix", "host/")


def test_keys_are_listed_rotated_and_revoked(keys_on: ClusterUnderTest) -> None:
    run("keys", "create", "ann", "--name", "backup")
    key = Key.objects.get()
    assert re.search(rf"{key.pk}\s+ann\s+backup\s+delete read write\s+all\s+never\s+good", run("keys", "list"))
    assert shown(run("keys", "rotate", key.pk)).key_id == key.pk
    run("keys", "revoke", key.pk)
    assert re.search(rf"{key.pk}.*revoked", run("keys", "list"))
    for verb in ("rotate", "revoke"):
        with pytest.raises(CommandError, match="no key"):
            run("keys", verb, key.pk)


def test_nobody_and_inactive_users_get_no_key(keys_on: ClusterUnderTest) -> None:
    User.objects.create(username="gone", is_active=False)
    for name in ("nobody", "gone"):
        with pytest.raises(CommandError, match="may have no key"):
            run("keys", "create", name)


@pytest.mark.parametrize(
    "words", [("",), ("a\nb",), ("x" * 151,), ("ann", "--name", "n" * 101), ("ann", "--name", "\x1b[31m")]
)
def test_names_that_cannot_be_are_refused_in_a_line(keys_on: ClusterUnderTest, words: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as refused:
        run("keys", "create", *words)
    assert str(refused.value).isprintable()
    assert not Key.objects.exists()


def test_files_are_given_to_a_user_who_is_there(cluster: ClusterUnderTest) -> None:
    cluster.upload(b"x")
    with pytest.raises(CommandError, match="no active user ann"):
        run("give_files", "ann")
    ann = owner("ann")
    assert run("give_files", "ann") == "1 files and 0 buckets belong to ann now\n"
    assert File.objects.get().owner == ann


# -- the administration ------------------------------------------------------


@pytest.fixture
def operator(keys_on: ClusterUnderTest) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("admin", "", "secret"))
    return client


def test_the_administration_makes_rotates_and_revokes_keys(operator: Client) -> None:
    pages = "/admin/storage/key/"
    form = {"owner": owner("ann").pk, "name": "backup", "scopes": ["read", "write"]}
    page = operator.post(f"{pages}add/", form, follow=True).content.decode()
    assert shown(page).scopes == {Scope.READ, Scope.WRITE}
    key = Key.objects.get()
    chosen = {"_selected_action": [key.pk]}
    page = operator.post(pages, {**chosen, "action": "rotate"}, follow=True).content.decode()
    principal = shown(page)
    operator.post(pages, {**chosen, "action": "revoke"})
    assert "revoked" in operator.get(pages).content.decode()
    assert principal.key_id == key.pk
    assert Key.objects.get().state(clock.now()) == "revoked"


def test_a_secret_is_in_one_answer_and_in_no_cookie(operator: Client) -> None:
    pages = "/admin/storage/key/"
    form = {"owner": owner("ann").pk, "name": "backup", "scopes": ["read"]}
    made = operator.post(f"{pages}add/", form)
    shown(made.content.decode())
    rotated = operator.post(pages, {"_selected_action": [Key.objects.get().pk], "action": "rotate"})
    for answer in (made, rotated):
        assert answer.status_code == 200
        assert "no-store" in answer["Cache-Control"]
        assert set(answer.cookies) <= {"csrftoken"}
    shown(rotated.content.decode())
    assert not re.search(r"secret\W+[A-Za-z0-9]{40}", operator.get(pages).content.decode())


def test_the_administration_shows_no_secret_again_and_edits_no_key(operator: Client) -> None:
    run("keys", "create", "ann")
    key = Key.objects.get()
    page = operator.get(f"/admin/storage/key/{key.pk}/change/").content.decode()
    assert key.pk in page
    assert bytes(key.digest).hex() not in page
    assert operator.post(f"/admin/storage/key/{key.pk}/change/", {"name": "other"}).status_code == 403
    assert operator.post(f"/admin/storage/key/{key.pk}/delete/", {"post": "yes"}).status_code == 403
    bad = operator.post("/admin/storage/key/add/", {"owner": "", "scopes": []}).content.decode()
    assert "This field is required" in bad
    nobody = User.objects.get(username="nobody")
    refused = operator.post("/admin/storage/key/add/", {"owner": nobody.pk, "scopes": ["read"]}).content.decode()
    assert "not one of the available choices" in refused


def test_the_administration_tells_nothing_of_digests(operator: Client) -> None:
    run("keys", "create", "ann")
    for query in ("digest__contains=a", "digest__regex=.", "sealed__gt=a"):
        assert operator.get(f"/admin/storage/key/?{query}").status_code == 400
    form = {"owner": owner("ann").pk, "name": "a\x1b[31m", "scopes": ["read"]}
    assert "can be printed" in operator.post("/admin/storage/key/add/", form).content.decode()


def test_a_session_shows_its_user_the_own_files_and_a_bad_cookie_opens_nothing(operator: Client) -> None:
    assert operator.get("/files").json()["total_files"] == 0
    with pytest.raises(Unauthenticated):
        identify({"HTTP_COOKIE": "sessionid=x"})
