"""The sessions of browsers, read without Django's middleware, which plain downloads bypass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.http import parse_cookie


@dataclass(frozen=True)
class _Holder:
    """The part of a request that Django's ``get_user`` reads."""

    session: SessionBase


def user_of(environ: Mapping[str, Any]) -> User | None:
    """The active user who is logged in with the browser that sends a request; None without a good session.

    The session is read for each request: a user who logs out is logged out at once, in every process. Django finds no
    user who was deactivated, and accepts no session from before the password was changed.

    Args:
        environ: the WSGI environment of the request.
    """
    key = parse_cookie(environ.get("HTTP_COOKIE", "")).get(settings.SESSION_COOKIE_NAME)
    if not key:
        return None
    engine: Any = import_module(settings.SESSION_ENGINE)
    holder: Any = _Holder(engine.SessionStore(key))
    user = get_user(holder)
    return user if isinstance(user, User) else None
