from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from storage.accounts import keys, principals, sealing
from storage.accounts.principals import identify
from storage.exceptions import Forbidden, InvalidRequest, NoSuchKey, SecretUnreadable, Unauthenticated
from storage.models import Key, KeyLimit, Scope, clock
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import keys_on, owner

__all__ = ["keys_on"]


@pytest.fixture
def ann(keys_on: ClusterUnderTest) -> User:
    return owner("ann")


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The monotonic clock of the process, in seconds, for the tests to set."""
    now = [1000.0]
    monkeypatch.setattr("storage.accounts.principals.monotonic", lambda: now[0])
    yield now


def bearer(new: keys.NewKey) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": f"Bearer {new.key.pk}:{new.secret}"}


def basic(new: keys.NewKey) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": "Basic " + base64.b64encode(f"{new.key.pk}:{new.secret}".encode()).decode()}


def test_a_key_says_whose_request_it_is_in_either_scheme(ann: User) -> None:
    new = keys.create(ann, scopes=[Scope.READ, Scope.DELETE])
    for environ in (bearer(new), basic(new)):
        principal = identify(environ)
        assert (principal.owner.pk, principal.key_id) == (ann.pk, new.key.pk)
        assert principal.scopes == {Scope.READ, Scope.DELETE}


def test_a_key_may_open_a_part_of_one_bucket_only(ann: User, client: Client) -> None:
    new = keys.create(ann, scopes=list(Scope), limit=KeyLimit("backups", "host/"))
    principal = identify(bearer(new))
    assert principal.limit == KeyLimit("backups", "host/")
    principal.require_place("backups", "host/a")
    principal.require_place("backups", "host/")
    for bucket, key in (("other", "host/a"), ("backups", "hos"), ("backups", ""), ("backups", "a/host/")):
        with pytest.raises(Forbidden):
            principal.require_place(bucket, key)
    for path in ("/files", "/account", "/status", f"/download/{'0' * 64}"):
        assert client.get(path, headers={"Authorization": bearer(new)["HTTP_AUTHORIZATION"]}).status_code == 403, path
    free = identify(bearer(keys.create(ann, scopes=[Scope.READ])))
    assert free.limit is None
    free.require_place("any", "any")


@pytest.mark.parametrize("limit", [("", "a"), ("a", ""), ("A_b", ""), ("a/b", ""), ("abc", "\0"), ("abc", "x" * 1025)])
def test_a_limit_names_a_bucket_that_can_be(ann: User, limit: tuple[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        keys.create(ann, scopes=[Scope.READ], limit=KeyLimit(*limit))
    assert Key.objects.count() == 0


@pytest.mark.parametrize(
    "field",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic",
        "Basic !!!",
        "Basic //8=",
        "Digest {id}:{secret}",
        "Bearer {id}",
        "Bearer {id}:",
        "Bearer :{secret}",
        "Bearer {id}:{secret}x",
        "Bearer {id}:" + "x" * 40,
        "Bearer OCC" + "A" * 17 + ":{secret}",
        "Bearer \0{id}:{secret}",
        "Bearer OCC" + "\0" * 17 + ":{secret}",
    ],
)
def test_anything_but_a_good_key_is_refused(ann: User, field: str) -> None:
    new = keys.create(ann, scopes=Scope)
    with pytest.raises(Unauthenticated):
        identify({"HTTP_AUTHORIZATION": field.format(id=new.key.pk, secret=new.secret)})


def test_a_key_that_was_used_costs_no_query(ann: User) -> None:
    new = keys.create(ann, scopes=Scope)
    identify(bearer(new))
    with CaptureQueriesContext(connection) as queries:
        for _ in range(100):
            identify(bearer(new))
    assert len(queries) == 0


def test_a_revoked_key_opens_nothing_once_the_caches_have_expired(ann: User, hours: list[float]) -> None:
    new = keys.create(ann, scopes=Scope)
    identify(bearer(new))
    keys.revoke(new.key.pk)
    identify(bearer(new))
    hours[0] += keys.GOOD_SECONDS
    with pytest.raises(Unauthenticated):
        identify(bearer(new))
    with pytest.raises(NoSuchKey):
        keys.revoke(new.key.pk)


def test_an_expired_key_and_the_key_of_an_inactive_owner_open_nothing(ann: User) -> None:
    expired = keys.create(ann, scopes=Scope, expires_at=clock.now() - timedelta(seconds=1))
    later = keys.create(ann, scopes=Scope, expires_at=clock.now() + timedelta(hours=1))
    with pytest.raises(Unauthenticated):
        identify(bearer(expired))
    identify(bearer(later))
    User.objects.update(is_active=False)
    principals.forget()
    with pytest.raises(Unauthenticated):
        identify(bearer(later))


def test_a_rotated_key_has_another_secret(ann: User) -> None:
    old = keys.create(ann, scopes=[Scope.READ])
    identify(bearer(old))
    new = keys.rotate(old.key.pk)
    assert new.key.pk == old.key.pk
    assert identify(bearer(new)).scopes == {Scope.READ}
    with pytest.raises(Unauthenticated):
        identify(bearer(old))
    keys.revoke(old.key.pk)
    with pytest.raises(NoSuchKey):
        keys.rotate(old.key.pk)


def test_the_last_use_is_written_once_a_minute(ann: User, hours: list[float]) -> None:
    new = keys.create(ann, scopes=Scope)
    identify(bearer(new))
    first = Key.objects.get().last_used_at
    assert first is not None
    hours[0] += principals.USE_SECONDS
    identify(bearer(new))
    assert Key.objects.get().last_used_at == first, "another process has written it within the minute"
    Key.objects.update(last_used_at=first - timedelta(minutes=2))
    hours[0] += principals.USE_SECONDS
    identify(bearer(new))
    last = Key.objects.get().last_used_at
    assert last is not None
    assert last >= first


def test_a_key_opens_doors_although_its_use_cannot_be_recorded(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(key_id: str) -> None:
        raise DatabaseError("read-only")

    new = keys.create(ann, scopes=Scope)
    monkeypatch.setattr(Key, "record_use", refuse)
    assert identify(bearer(new)).key_id == new.key.pk


def test_unknown_ids_do_not_fill_the_memory(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principals, "REMEMBERED", 10)
    for number in range(100):
        with pytest.raises(Unauthenticated):
            identify({"HTTP_AUTHORIZATION": f"Bearer OCC{number:017}:{'x' * 40}"})
    assert len(principals._remembered) <= 10


def test_a_dump_of_the_database_opens_nothing(ann: User, settings: Any) -> None:
    new = keys.create(ann, scopes=Scope)
    with connection.cursor() as cursor:
        cursor.execute("SELECT k::text FROM storage_key k")
        ((row,),) = cursor.fetchall()
    assert new.secret not in row
    assert new.secret.encode().hex() not in row
    settings.SECRET_KEY = "another"
    with pytest.raises(SecretUnreadable):
        sealing.unseal(bytes(new.key.sealed), new.key.pk)


def test_a_sealed_secret_opens_for_its_own_key_also_after_the_secret_key_was_changed(ann: User, settings: Any) -> None:
    new, other = keys.create(ann, scopes=Scope), keys.create(ann, scopes=Scope)
    sealed = bytes(Key.objects.get(pk=new.key.pk).sealed)
    assert sealing.unseal(sealed, new.key.pk) == new.secret
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another"
    assert sealing.unseal(sealed, new.key.pk) == new.secret
    for damaged, key_id in ((sealed, other.key.pk), (b"\2" + sealed[1:], new.key.pk), (b"", new.key.pk)):
        with pytest.raises(SecretUnreadable):
            sealing.unseal(damaged, key_id)


def test_while_keys_are_off_everybody_is_nobody(cluster: ClusterUnderTest) -> None:
    for field in ("", "Bearer nonsense"):
        principal = identify({"HTTP_AUTHORIZATION": field})
        assert (principal.owner.username, principal.key_id) == ("nobody", None)
        assert principal.scopes == set(Scope)
