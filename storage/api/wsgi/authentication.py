"""The check of a request's key and of its rate, before Django sees the request and before its body is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from storage.accounts import rates
from storage.accounts.principals import identify
from storage.api.authorization import authorize, is_limited, needs_key
from storage.api.errors import send_problem
from storage.exceptions import Forbidden, Unauthenticated

CACHE_CONTROL = "Cache-Control"


class Authentication:
    """WSGI middleware that refuses requests without a key that allows them.

    A refused request reads no body, stages nothing and leaves no row.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        needed = needs_key(environ)
        try:
            key_id = _key_of(environ) if needed else None
            if is_limited(environ):
                rates.take(key_id or environ.get("REMOTE_ADDR", ""))
        except Exception as error:  # noqa: BLE001  every error is a problem document, or a defect that is logged
            return send_problem(error, environ, start_response)
        return self._application(environ, _kept_private(start_response) if needed else start_response)


def _key_of(environ: WSGIEnvironment) -> str | None:
    """The id of the key that allows a request.

    Raises:
        Unauthenticated, Forbidden: as for ``authorize``.
        TooManyRequests: the key, or the address without a good key, has sent too many requests that were refused.
    """
    try:
        return authorize(environ).key_id
    except Unauthenticated:
        rates.take(environ.get("REMOTE_ADDR", ""))
        raise
    except Forbidden:
        rates.take(identify(environ).key_id or "")
        raise


def _kept_private(start_response: StartResponse) -> StartResponse:
    """Tell caches that are shared by several clients not to store an answer that was given for a key."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        known = [value for name, value in headers if name == CACHE_CONTROL]
        others = [(name, value) for name, value in headers if name != CACHE_CONTROL]
        return start_response(status, [*others, (CACHE_CONTROL, ", ".join(["private", *known]))], *exc_info)

    return start
