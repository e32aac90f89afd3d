"""Plain downloads of files, which are answered before Django (ADR 15)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from django.conf import settings

from storage.api.downloads.answer import Answer, answer, answer_shared
from storage.api.errors import send_problem, status_line
from storage.api.names import decoded
from storage.models.fields import HEX_DIGEST

PATH = re.compile(rf"/download/({HEX_DIGEST.pattern})(?:/(.+))?", re.DOTALL)
SHARED = re.compile(r"/share/([^/]+)(?:/(.*))?", re.DOTALL)


class Downloads:
    """WSGI middleware that answers plain downloads of files. ``application``, Django, gets all other requests."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = PATH.fullmatch(environ["PATH_INFO"])
        reply: Callable[..., Answer] = answer
        if path is None:
            path, reply = SHARED.fullmatch(environ["PATH_INFO"]), answer_shared
        if path is None or not _is_plain(environ):
            return self._application(environ, start_response)
        try:
            found = reply(environ, path[1], decoded((path[2] or "").encode("latin-1")))
        except Exception as error:  # noqa: BLE001  every error is a problem document, or a defect that is logged
            return send_problem(error, environ, start_response)
        with found.handing_over():
            start_response(status_line(found.status), list(found.headers.items()))
        return () if found.body is None else found.body


def _is_plain(environ: WSGIEnvironment) -> bool:
    """True for a GET or a HEAD while CORS is off. While CORS is on, Django's middleware adds the CORS headers."""
    return environ["REQUEST_METHOD"] in ("GET", "HEAD") and not settings.CORS_ALLOWED_ORIGINS
