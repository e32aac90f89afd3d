"""Keys: list, make, rotate and revoke them. No key can be used to get a key that may do more."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from storage.accounts import keys
from storage.accounts.principals import Principal
from storage.api import documents, serializers
from storage.api.authorization import authorize, require_operator
from storage.api.endpoint import Endpoint
from storage.api.schema import examples, operating
from storage.api.schema.operations import Reply, describe
from storage.api.uploads.bodies import FieldsParser, FormParser, JSONParser
from storage.conf import configuration
from storage.exceptions import Forbidden, InvalidRequest, NoSuchKey
from storage.models import Key, Scope, clock

SECRET = {"Cache-Control": "no-store"}  # No cache keeps an answer with a secret.


class KeysView(Endpoint):
    """Your keys, without their secrets; with the scope `admin`, all keys. A `POST` makes one and shows its secret once.

    A new key may do what `scopes` says: `read`, `write`, `delete` by default. It cannot do more, or work longer, than
    the key that asks for it. `expires_in` is a time in seconds. `owner` is for admins.
    """

    parser_classes = (JSONParser, FormParser, FieldsParser)

    def get_serializer(self, *args: Any, **kwargs: Any) -> serializers.KeySerializer:
        return serializers.KeySerializer(*args, **kwargs)

    @describe("List the keys", {200: Reply("the keys", operating.Keys, example=examples.KEYS)}, problems=("forbidden",))
    def get(self, request: Request) -> Response:
        visible = _visible(_asker(request)).order_by("-created_at", "id")
        return Response({"keys": [documents.key(key) for key in visible]})

    @describe(
        "Make a key",
        {201: Reply("the key and its secret", operating.NewKey, ("Cache-Control",), example=examples.NEW_KEY)},
    )
    def post(self, request: Request) -> Response:
        asker = _asker(request)
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        wanted = form.validated_data
        seconds = wanted.get("expires_in")
        expires_at = None if seconds is None else clock.now() + timedelta(seconds=seconds)
        _require_no_more(asker, wanted["scopes"], expires_at)
        new = keys.create(
            _owner(asker, wanted["owner"]), scopes=wanted["scopes"], name=wanted["name"], expires_at=expires_at
        )
        return _shown(new, status.HTTP_201_CREATED)


class KeyView(Endpoint):
    """One key of yours; with the scope `admin`, any key. A `DELETE` revokes it: it opens nothing after five seconds."""

    http_method_names = ("delete", "options")
    done = "The key is revoked."

    @describe("Revoke a key", {204: Reply("revoked")}, problems=("no_such_key",))
    def delete(self, request: Request, key_id: str) -> Response:
        keys.revoke(_controlled(request, key_id).pk)
        return Response(status=status.HTTP_204_NO_CONTENT)


class RotateView(Endpoint):
    """Give a key of yours a new secret, which is shown once; with the scope `admin`, any key. The old one opens nothing
    after five seconds."""

    @describe(
        "Rotate a key",
        {200: Reply("the key and its new secret", operating.NewKey, ("Cache-Control",), example=examples.NEW_KEY)},
        problems=("no_such_key",),
    )
    def post(self, request: Request, key_id: str) -> Response:
        return _shown(keys.rotate(_controlled(request, key_id).pk), status.HTTP_200_OK)


def _asker(request: Request) -> Principal:
    """The principal that asks for keys, or changes them.

    Raises:
        Forbidden: keys are off. Everybody could then make keys that open the service when keys are on.
    """
    principal = authorize(request.META)
    if not configuration().auth_required:
        raise Forbidden("keys are off: see AUTH_REQUIRED")
    return principal


def _visible(asker: Principal) -> QuerySet[Key]:
    """The keys that the asker may see, with their owners."""
    keys_of_all = Key.objects.select_related("owner")
    return keys_of_all if Scope.ADMIN in asker.scopes else keys_of_all.filter(owner=asker.owner)


def _controlled(request: Request, key_id: str) -> Key:
    """The key of this id, if the asker may change it.

    Raises:
        NoSuchKey: there is no such key, or the asker may not see it.
        Forbidden: the asker may not change the key, or the key may do more than the asker's own key, or works longer.
    """
    asker = _asker(request)
    key = _visible(asker).filter(pk=key_id).first() if "\0" not in key_id else None
    if key is None:
        raise NoSuchKey(f"no key {key_id}")
    if key.owner_id != asker.owner.pk:
        require_operator(asker, "storage.change_key")
    _require_no_more(asker, key.granted, key.expires_at)
    return key


def _require_no_more(asker: Principal, scopes: frozenset[Scope], expires_at: datetime | None) -> None:
    """
    Raises:
        Forbidden: a key may do more than the asker's own key, or works longer. A thief of a key must not get a better
            key with it.
    """
    if Scope.ADMIN in scopes:
        require_operator(asker, "storage.add_key")
    if more := scopes - asker.scopes:
        raise Forbidden(f"your own key does not allow to {', '.join(sorted(more))}")
    ends = Key.objects.get(pk=asker.key_id).expires_at if asker.key_id else None
    if ends is not None and (expires_at is None or expires_at > ends):
        raise Forbidden(f"your own key expires at {ends:%Y-%m-%d %H:%M} UTC: another one cannot work longer")


def _owner(asker: Principal, name: str) -> User:
    """
    Raises:
        Forbidden: the asker makes a key for somebody else, and is no admin.
        InvalidRequest: there is no active user of this name.
    """
    if not name or name == asker.owner.username:
        return asker.owner
    require_operator(asker, "storage.add_key")
    owner = User.objects.filter(username=name, is_active=True).first()
    if owner is None:
        raise InvalidRequest("a key belongs to an active user", {"owner": [f"There is no active user {name}."]})
    return owner


def _shown(new: keys.NewKey, code: int) -> Response:
    return Response({**documents.key(new.key), "secret": new.secret}, code, headers=SECRET)
