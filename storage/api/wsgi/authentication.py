"""The check of a request's key, before Django sees the request and before its body is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from storage.api.authorization import authorize, needs_key
from storage.api.errors import send_problem

CACHE_CONTROL = "Cache-Control"


class Authentication:
    """WSGI middleware that refuses requests without a key that allows them.

    A refused request reads no body, stages nothing and leaves no row.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not needs_key(environ):
            return self._application(environ, start_response)
        try:
            authorize(environ)
        except Exception as error:  # noqa: BLE001  every error is a problem document, or a defect that is logged
            return send_problem(error, environ, start_response)
        return self._application(environ, _kept_private(start_response))


def _kept_private(start_response: StartResponse) -> StartResponse:
    """Tell caches that are shared by several clients not to store an answer that was given for a key."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        known = [value for name, value in headers if name == CACHE_CONTROL]
        others = [(name, value) for name, value in headers if name != CACHE_CONTROL]
        return start_response(status, [*others, (CACHE_CONTROL, ", ".join(["private", *known]))], *exc_info)

    return start
