"""The users of people who log in with an OpenID provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from storage.models import NOBODY, Identity

log = structlog.get_logger(__name__)

LONGEST_NAME = 150  # characters, in Django's table of users
MOST_NAMESAKES = 1000


def user_of(claims: Mapping[str, Any], admin_group: str) -> User:
    """The user of a person. At the person's first login, the user is made, without a password.

    A user who has the same name already counts as another person, and the person gets a name with a number. Otherwise
    people who may choose their names at the provider could choose whose files they see here.

    Args:
        claims: the claims of an ID token that has been verified.
        admin_group: people whose claim ``groups`` has this group are admins, and nobody else is; empty if admins are
            made here by hand.
    """
    issuer, subject = str(claims["iss"]), str(claims["sub"])
    identity = Identity.objects.select_related("user").filter(issuer=issuer, subject=subject).first()
    user = identity.user if identity is not None else _make(issuer, subject, _wanted_name(claims))
    if admin_group:
        _set_admin(user, admin_group in _groups(claims))
    return user


def _make(issuer: str, subject: str, wanted: str) -> User:
    for number in range(1, MOST_NAMESAKES):
        name = wanted if number == 1 else f"{wanted[: LONGEST_NAME - 5]}-{number}"
        try:
            with transaction.atomic():
                if User.objects.filter(username__iexact=name).exists():
                    continue
                user = User.objects.create_user(name)
                Identity.objects.create(issuer=issuer, subject=subject, user=user)
        except IntegrityError:
            # Another request has made a user of this name, or this very person's user, a moment ago.
            known = Identity.objects.select_related("user").filter(issuer=issuer, subject=subject).first()
            if known is not None:
                return known.user
            continue
        log.info("identity.created", user=user.pk, issuer=issuer)
        return user
    raise RuntimeError(f"{MOST_NAMESAKES} users are called {wanted}")


def _wanted_name(claims: Mapping[str, Any]) -> str:
    for claim in ("preferred_username", "email", "name"):
        name = "".join(character for character in str(claims.get(claim) or "") if character.isprintable()).strip()
        if name and name != NOBODY:
            return name[:LONGEST_NAME]
    return "user"


def _groups(claims: Mapping[str, Any]) -> list[str]:
    groups = claims.get("groups")
    return [str(group) for group in groups] if isinstance(groups, list) else []


def _set_admin(user: User, is_admin: bool) -> None:
    if (user.is_staff, user.is_superuser) != (is_admin, is_admin):
        user.is_staff = user.is_superuser = is_admin
        user.save(update_fields=["is_staff", "is_superuser"])
        log.info("identity.admin" if is_admin else "identity.no_admin", user=user.pk)
