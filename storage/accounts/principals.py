"""The origin of a request: the owner of its key, the user who is logged in or, while keys are off, ``nobody``.

The origin is found out before a body is read, and without Django, which most downloads bypass.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from django.contrib.auth.models import User
from django.db import DatabaseError

from storage import acting
from storage.accounts import sessions
from storage.accounts.keys import GOOD_SECONDS, ID_LENGTH, SECRET_LENGTH, USUAL, digest
from storage.accounts.sealing import unseal
from storage.conf import configuration
from storage.exceptions import Forbidden, SecretUnreadable, Unauthenticated
from storage.models import Key, KeyLimit, Scope, nobody
from storage.models.refusals import UNAVAILABLE

USE_SECONDS = 60.0  # A process records the use of a key at most once in this many seconds.
IDENTITY = "occ.identity"
"""Under this key of the WSGI environment, the console gives the API the principal of a request that it makes itself."""

REMEMBERED = 10_000  # The most ids of keys that a process remembers, ids that do not exist included.


@dataclass(frozen=True)
class Principal:
    """The origin of a request.

    Attributes:
        owner: the user whose files the request is about.
        scopes: what the request may do.
        key_id: the key that was shown; None while keys are off, and in the session of a browser.
        in_session: True if the owner has logged in with a browser.
        limit: the only part of the store that the key opens; None if it opens all that the owner has.
    """

    owner: User
    scopes: frozenset[Scope]
    key_id: str | None = None
    in_session: bool = False
    limit: KeyLimit | None = None

    def require(self, scope: Scope) -> None:
        """
        Raises:
            Forbidden: the principal does not have the scope.
        """
        if scope not in self.scopes:
            raise Forbidden(f"this key does not allow to {scope.value}" if scope != Scope.ADMIN else "for admins only")

    def require_place(self, bucket: str, key: str) -> None:
        """
        Args:
            bucket: the name of a bucket.
            key: a key in it, or the prefix of the keys that are to be listed.

        Raises:
            Forbidden: the place is outside of what the key opens.
        """
        if self.limit is not None and not self.limit.has(bucket, key):
            raise Forbidden("this key is for another bucket, or for other keys in it")

    @property
    def actor(self) -> acting.Actor:
        """The principal in the activity."""
        return acting.Actor(self.owner.username, self.key_id or (acting.BROWSER if self.in_session else ""))

    @property
    def subject(self) -> str | None:
        """The name under which requests of this origin are counted; None while keys are off."""
        return f"user:{self.owner.pk}" if self.in_session else self.key_id


@dataclass(frozen=True)
class _Remembered:
    """What a process has read about a key; ``principal`` is None if no good key has the id."""

    read_at: float
    digest: bytes
    sealed: bytes
    principal: Principal | None

    @property
    def is_fresh(self) -> bool:
        return monotonic() - self.read_at < GOOD_SECONDS

    def opens_with(self, secret: str) -> bool:
        """True if the key is good and has this secret. For an id that does not exist, the comparison takes as long as
        for a key.
        """
        return hmac.compare_digest(digest(secret), self.digest) and self.principal is not None


_remembered: dict[str, _Remembered] = {}
_used_at: dict[str, float] = {}
_NO_DIGEST = bytes(32)


def identify(environ: Mapping[str, Any], *, last_known: bool = False) -> Principal:
    """Find out who a request comes from.

    A key that this process has read within the last ``GOOD_SECONDS`` costs no query.

    Args:
        environ: the WSGI environment of the request.
        last_known: True if, while PostgreSQL is away, a key is accepted that this process has read at any earlier time.

    Raises:
        Unauthenticated: the request shows neither a good key nor the session of a user who is logged in.
    """
    known = environ.get(IDENTITY)
    if isinstance(known, Principal):
        return known
    if not configuration().auth_required:
        return anyone()
    if "HTTP_AUTHORIZATION" not in environ and (user := sessions.user_of(environ)) is not None:
        return Principal(user, _scopes_in_session(user), in_session=True)
    key_id, secret = _credentials(environ.get("HTTP_AUTHORIZATION", ""))
    entry = _remembered.get(key_id)
    if entry is None or not entry.is_fresh or not entry.opens_with(secret):
        try:
            entry = _read(key_id)  # The remembered secret may be stale: a key can be rotated.
        except UNAVAILABLE:
            if last_known and entry is not None and entry.principal is not None and entry.opens_with(secret):
                return entry.principal
            raise
        if not entry.opens_with(secret):
            raise Unauthenticated("this key is not known, has expired or was revoked, or its secret is wrong")
    assert entry.principal is not None
    _record_use(key_id)
    return entry.principal


def anyone() -> Principal:
    """The origin of every request while keys are off."""
    return Principal(nobody(), frozenset(Scope))


@dataclass(frozen=True)
class Signer:
    """The owner of the key that a signed request names, and the secret that must have made the signature."""

    principal: Principal
    secret: str


def signer(key_id: str) -> Signer:
    """Find the key that a request is signed with. The caller checks the signature.

    A key that this process has read within the last ``GOOD_SECONDS`` costs no query.

    Raises:
        Unauthenticated: no good key has this id, or its secret cannot be read.
    """
    if len(key_id) != ID_LENGTH or "\0" in key_id:
        raise Unauthenticated("this is not the id of a key")
    entry = _remembered.get(key_id)
    if entry is None or not entry.is_fresh:
        entry = _read(key_id)
    if entry.principal is None:
        raise Unauthenticated("this key is not known, has expired or was revoked")
    try:
        secret = unseal(entry.sealed, key_id)
    except SecretUnreadable as error:
        raise Unauthenticated(str(error)) from None
    _record_use(key_id)
    return Signer(entry.principal, secret)


def _scopes_in_session(user: User) -> frozenset[Scope]:
    return frozenset(Scope) if user.is_staff else frozenset(USUAL)


def forget() -> None:
    """Forget all keys, as if this process had just begun."""
    _remembered.clear()
    _used_at.clear()


def _credentials(field: str) -> tuple[str, str]:
    """The id and the secret in an Authorization field: ``Bearer <id>:<secret>``, or Basic (RFC 7617).

    Raises:
        Unauthenticated: the field is missing or malformed.
    """
    scheme, _, text = field.partition(" ")
    text = text.strip()
    if scheme.lower() == "basic":
        try:
            text = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, ValueError):
            text = ""
    elif scheme.lower() != "bearer":
        raise Unauthenticated("a key is needed: see docs/security.md")
    key_id, _, secret = text.partition(":")
    if len(key_id) != ID_LENGTH or len(secret) != SECRET_LENGTH or "\0" in key_id:
        raise Unauthenticated("this is not the id and the secret of a key")
    return key_id, secret


def _read(key_id: str) -> _Remembered:
    read_at = monotonic()
    key = Key.find_good(key_id)
    if key is None:
        entry = _Remembered(read_at, _NO_DIGEST, b"", None)
    else:
        principal = Principal(key.owner, key.granted, key.pk, limit=key.limit)
        entry = _Remembered(read_at, bytes(key.digest), bytes(key.sealed), principal)
    if len(_remembered) >= REMEMBERED:
        _remembered.clear()
    _remembered[key_id] = entry
    return entry


def _record_use(key_id: str) -> None:
    now = monotonic()
    if now - _used_at.get(key_id, -USE_SECONDS) < USE_SECONDS:
        return
    _used_at[key_id] = now
    # The time of the last use is for people: a request does not fail because this time cannot be recorded.
    with suppress(DatabaseError):
        Key.record_use(key_id)
