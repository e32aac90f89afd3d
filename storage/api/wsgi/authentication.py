"""The check of a request's key, before Django sees the request and before its body is read."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from storage.api.authorization import authorize, needs_key
from storage.api.errors import send_problem


class Authentication:
    """WSGI middleware that refuses requests without a key that allows them.

    A refused request reads no body, stages nothing and leaves no row.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if needs_key(environ):
            try:
                authorize(environ)
            except Exception as error:  # noqa: BLE001  every error is a problem document, or a defect that is logged
                return send_problem(error, environ, start_response)
        return self._application(environ, start_response)
