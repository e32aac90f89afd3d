"""Django's middleware for whoever logs in: only the administration has sessions, and only its pages pay for them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest
from django.middleware.csrf import CsrfViewMiddleware

ADMIN = "/admin/"


class _ForAdmin:
    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        handle: Any = super().__call__ if request.path_info.startswith(ADMIN) else self.get_response  # type: ignore[misc]
        return handle(request)


class Sessions(_ForAdmin, SessionMiddleware):
    pass


class Csrf(_ForAdmin, CsrfViewMiddleware):
    pass


class Authentication(_ForAdmin, AuthenticationMiddleware):
    pass


class Messages(_ForAdmin, MessageMiddleware):
    pass
