"""Keys: create, rotate, revoke."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now

from storage.accounts.sealing import seal
from storage.exceptions import InvalidRequest, NoSuchKey
from storage.models import Activity, Key, KeyLimit, Scope

log = structlog.get_logger(__name__)

ID_PREFIX, ID_LENGTH = "OCC", 20
SECRET_LENGTH = 40
LONGEST_PREFIX = 1024
USUAL = (Scope.READ, Scope.WRITE, Scope.DELETE)  # A key has these scopes unless others are asked for.
GOOD_SECONDS = 5.0  # A process that has read a key trusts it for this long.
ID_CHARACTERS = string.ascii_uppercase + string.digits
SECRET_CHARACTERS = string.ascii_letters + string.digits  # A secret needs no quotes in a shell and no escapes in a URL.


@dataclass(frozen=True)
class NewKey:
    """A key together with its secret, which is shown to its owner now and never again."""

    key: Key
    secret: str


def create(
    owner: User,
    *,
    scopes: Iterable[Scope],
    name: str = "",
    expires_at: datetime | None = None,
    limit: KeyLimit | None = None,
) -> NewKey:
    """Create a key of the owner.

    Args:
        owner: the owner.
        scopes: what the key allows.
        name: the person or program that gets the key.
        expires_at: the time from which on the key is not good any more; None for no end.
        limit: the only part of the store that the key opens; None for no limit.

    Raises:
        InvalidRequest: ``name`` is too long, or has characters that cannot be printed; or there can be no such limit.
    """
    if reason := fault_of_name(name):
        raise InvalidRequest("this cannot be the name of a key", {"name": [reason]})
    if limit is not None and (reason := fault_of_limit(limit)):
        raise InvalidRequest("a key cannot be limited so", {"bucket": [reason]})
    key_id = ID_PREFIX + _random(ID_CHARACTERS, ID_LENGTH - len(ID_PREFIX))
    secret = _random(SECRET_CHARACTERS, SECRET_LENGTH)
    with transaction.atomic():
        key = Key.objects.create(
            id=key_id,
            owner=owner,
            name=name,
            scopes=" ".join(sorted(set(scopes))),
            digest=digest(secret),
            sealed=seal(secret, key_id),
            expires_at=expires_at,
            bucket=limit.bucket if limit else "",
            prefix=limit.prefix if limit else "",
        )
        Activity.record(Activity.Action.CREATE_KEY, key_id, owner_id=owner.pk, detail=name)
    log.info("key.created", key=key_id, owner=owner.pk, scopes=key.scopes)
    return NewKey(key, secret)


def fault_of_name(name: str) -> str | None:
    """The reason why a text cannot be the name of a key; None if it can be one."""
    if len(name) > (longest := Key._meta.get_field("name").max_length or 0):
        return f"The name of a key has at most {longest} characters."
    return None if name.isprintable() else "The name of a key has only characters that can be printed."


def fault_of_limit(limit: KeyLimit) -> str | None:
    """The reason why a key cannot be limited to a bucket and a prefix; None if it can be. The bucket need not exist."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", limit.bucket):
        return "A limit names a bucket: 3 to 63 small letters, digits, dots and hyphens."
    if "\0" in limit.prefix or len(limit.prefix) > LONGEST_PREFIX:
        return f"A prefix has at most {LONGEST_PREFIX} characters, and no NUL."
    return None


def rotate(key_id: str) -> NewKey:
    """Give a key a new secret. A process that has the old secret in its cache accepts it for up to ``GOOD_SECONDS``.

    Raises:
        NoSuchKey: no key has this id, or the key has been revoked.
    """
    secret = _random(SECRET_CHARACTERS, SECRET_LENGTH)
    key = _change(key_id, Activity.Action.ROTATE_KEY, digest=digest(secret), sealed=seal(secret, key_id))
    log.info("key.rotated", key=key_id)
    return NewKey(key, secret)


def revoke(key_id: str) -> None:
    """Revoke a key. A process that has the key in its cache accepts it for up to ``GOOD_SECONDS``.

    Raises:
        NoSuchKey: no key has this id, or the key has been revoked already.
    """
    _change(key_id, Activity.Action.REVOKE_KEY, revoked_at=Now())
    log.info("key.revoked", key=key_id)


@transaction.atomic
def _change(key_id: str, action: Activity.Action, **columns: Any) -> Key:
    """Change a key that has not been revoked; return it.

    Raises:
        NoSuchKey: no key has this id, or the key has been revoked.
    """
    if not Key.objects.filter(pk=key_id, revoked_at=None).update(**columns):
        raise NoSuchKey(f"no key {key_id} that has not been revoked")
    key = Key.objects.select_related("owner").get(pk=key_id)
    Activity.record(action, key_id, owner_id=key.owner_id, detail=key.name)
    return key


def digest(secret: str) -> bytes:
    """The SHA-256 of a secret. A secret has 238 random bits, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode()).digest()


def _random(characters: str, length: int) -> str:
    return "".join(secrets.choice(characters) for _ in range(length))
