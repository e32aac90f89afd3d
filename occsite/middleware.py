"""Middleware of Django and corsheaders, skipped for the requests that do not need it.

Only the administration and the console have sessions, so only their pages run the middleware for sessions.
"""

from __future__ import annotations

from typing import Any

from corsheaders.middleware import CorsMiddleware
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.deprecation import MiddlewareMixin

from storage import acting
from storage.api.errors import bad_request

ADMINISTRATION = "/admin/"
PAGES = (ADMINISTRATION, "/console/")
HOME = "/"


class Cors(CorsMiddleware):
    """CORS headers, skipped if CORS_ALLOWED_ORIGINS is empty: no other site may use the API then."""

    def __call__(self, request: HttpRequest) -> Any:
        return super().__call__(request) if settings.CORS_ALLOWED_ORIGINS else self.get_response(request)


class _ForPages:
    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        if request.path_info != HOME and not request.path_info.startswith(PAGES):
            return self.get_response(request)
        response: Any = super().__call__(request)  # type: ignore[misc]
        if request.is_secure():
            # A browser sends Secure cookies, those of the session and of the CSRF check, over TLS only.
            for cookie in response.cookies.values():
                cookie["secure"] = True
        return response


class Sessions(_ForPages, SessionMiddleware):
    pass


class Csrf(_ForPages, CsrfViewMiddleware):
    pass


class Authentication(_ForPages, AuthenticationMiddleware):
    pass


class Actors(_ForPages, MiddlewareMixin):
    """Names the actor on the pages of the administration. The console acts through the API, which names the actor."""

    def process_view(self, request: Any, *_: Any) -> None:
        if request.path_info.startswith(ADMINISTRATION) and request.user.is_authenticated:
            acting.begin(acting.Actor(request.user.username, acting.ADMINISTRATION))


class Messages(_ForPages, MessageMiddleware):
    pass


class Filters(_ForPages, MiddlewareMixin):
    """Answers a filter that PostgreSQL refuses, such as a malformed regular expression in the query, with 400."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        is_filter = isinstance(exception, DataError) and request.method in ("GET", "HEAD")
        return bad_request(request, exception) if is_filter else None
