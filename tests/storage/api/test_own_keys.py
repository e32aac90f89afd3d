"""Owners make, rotate and revoke keys in the API, but not with a key that may do less than the key in question."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User

from storage.accounts import keys, principals
from storage.models import Key, KeyLimit, Scope, clock
from tests.storage.api.test_schema import assert_described, schema
from tests.support.api import WholeClient as Client
from tests.support.api import assert_problem
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import bearer, keys_on, owner

__all__ = ["keys_on"]


def make(headers: dict[str, str], status: int = 201, **fields: Any) -> Any:
    response = Client().post("/keys", json.dumps(fields), content_type="application/json", headers=headers)
    assert response.status_code == status, response.content
    return response


def opens(key: dict[str, Any], path: str = "/files") -> bool:
    principals.forget()
    found = Client().get(path, headers={"Authorization": f"Bearer {key['id']}:{key['secret']}"}).status_code
    return bool(found == 200)


def test_an_owner_makes_rotates_and_revokes_a_key(keys_on: ClusterUnderTest) -> None:
    ann = bearer("ann")
    answer = make(ann, name="backup", scopes=["read"], expires_in=3600)
    assert "no-store" in answer.headers["Cache-Control"]
    key = answer.json()
    assert (key["owner"], key["name"], key["scopes"], key["state"]) == ("ann", "backup", ["read"], "good")
    assert opens(key)
    listed = Client().get("/keys", headers=ann)
    assert "secret" not in listed.content.decode()
    assert listed.json()["keys"][0]["id"] == key["id"]
    rotated = Client().post(f"/keys/{key['id']}/rotate", headers=ann).json()
    assert (opens(key), opens(rotated)) == (False, True)
    assert Client().delete(f"/keys/{key['id']}", headers=ann).status_code == 204
    assert not opens(rotated)
    assert_problem(Client().delete(f"/keys/{key['id']}", headers=ann), 404)
    assert Client().get("/keys", headers=ann).json()["keys"][0]["state"] == "revoked"


def test_the_list_says_what_a_key_is_limited_to(keys_on: ClusterUnderTest) -> None:
    limit = KeyLimit("backups", "2026/")
    limited = keys.create(owner("ann"), scopes=[Scope.READ], limit=limit).key
    answer = Client().get("/keys", headers=bearer("ann"))
    found = {key["id"]: (key["bucket"], key["prefix"]) for key in answer.json()["keys"]}
    assert found.pop(limited.pk) == ("backups", "2026/")
    assert list(found.values()) == [(None, None)]
    assert_described(schema(), "/keys", answer)


def test_a_form_makes_a_key_too(keys_on: ClusterUnderTest) -> None:
    answer = Client().post("/keys", {"scopes": "read write"}, headers=bearer("ann"))
    assert answer.json()["scopes"] == ["read", "write"]
    assert make(bearer("ann")).json()["scopes"] == ["delete", "read", "write"]


def test_a_key_gives_no_more_than_it_has(keys_on: ClusterUnderTest) -> None:
    strong = keys.create(owner("ann"), scopes=list(Scope)).key
    weak = bearer("ann", [Scope.READ, Scope.WRITE])
    assert_problem(make(weak, 403, scopes=["delete"]), 403)
    assert_problem(make(weak, 403), 403)
    for path in (f"/keys/{strong.pk}/rotate",):
        assert_problem(Client().post(path, headers=weak), 403)
    assert_problem(Client().delete(f"/keys/{strong.pk}", headers=weak), 403)
    assert_problem(Client().post("/keys", headers=bearer("ann", [Scope.READ])), 403)
    assert Key.objects.count() == 3


def test_a_key_gives_none_that_lives_longer(keys_on: ClusterUnderTest) -> None:
    new = keys.create(owner("ann"), scopes=[Scope.READ, Scope.WRITE], expires_at=clock.now() + timedelta(hours=1))
    short = {"Authorization": f"Bearer {new.key.pk}:{new.secret}"}
    make(short, 403, scopes=["read"])
    make(short, 403, scopes=["read"], expires_in=7200)
    make(short, scopes=["read"], expires_in=1800)
    assert Client().post(f"/keys/{new.key.pk}/rotate", headers=short).status_code == 200


def test_keys_of_others_are_not_there_but_for_admins(keys_on: ClusterUnderTest) -> None:
    ann, admin = bearer("ann"), bearer("root", list(Scope))
    bens = make(bearer("ben"), name="mine").json()
    assert bens["id"] not in Client().get("/keys", headers=ann).content.decode()
    assert_problem(Client().delete(f"/keys/{bens['id']}", headers=ann), 404)
    assert_problem(Client().post(f"/keys/{bens['id']}/rotate", headers=ann), 404)
    make(ann, 403, owner="ben")
    assert make(admin, owner="ben").json()["owner"] == "ben"
    User.objects.create(username="gone", is_active=False)
    for name in ("gone", "nobody", "who?"):
        assert_problem(make(admin, 400, owner=name), 400, "owner")
    assert Client().delete(f"/keys/{bens['id']}", headers=admin).status_code == 204


def test_wrong_wishes_are_refused_and_make_no_key(keys_on: ClusterUnderTest) -> None:
    ann = bearer("ann")
    for field, value in (
        ("scopes", []),
        ("scopes", "read all"),
        ("scopes", 7),
        ("scopes", [["read"]]),
        ("scopes", {"read": 1}),
        ("expires_in", 0),
        ("expires_in", "soon"),
        ("expires_in", 10**12),
        ("name", "x" * 101),
        ("name", "a\nb"),
    ):
        assert_problem(make(ann, 400, **{field: value}), 400, field)
    assert Key.objects.count() == 1
    for path in ("/keys/x%00y", "/keys/nothing"):
        assert_problem(Client().delete(path, headers=ann), 404)


def test_while_keys_are_off_nobody_makes_keys_that_open_later(cluster: ClusterUnderTest) -> None:
    User.objects.create_superuser("admin", "", "secret")
    key = keys.create(owner("ann"), scopes=list(Scope)).key
    for response in (
        Client().get("/keys"),
        Client().post("/keys", {"owner": "admin", "scopes": "admin"}),
        Client().post(f"/keys/{key.pk}/rotate"),
        Client().delete(f"/keys/{key.pk}"),
    ):
        assert "keys are off" in assert_problem(response, 403)["detail"]
    assert Key.objects.get() == key


def test_the_answers_are_those_of_the_schema(keys_on: ClusterUnderTest) -> None:
    document, ann = schema(), bearer("ann")
    made = make(ann)
    assert_described(document, "/keys", made, "post")
    assert_described(document, "/keys", Client().get("/keys", headers=ann))
    path = f"/keys/{made.json()['id']}/rotate"
    assert_described(document, "/keys/{key_id}/rotate", Client().post(path, headers=ann), "post")
