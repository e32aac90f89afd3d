"""Plain downloads, answered before Django (ADR 15)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from storage.api.downloads import answer
from storage.api.errors import problem_response
from storage.models.fields import HEX_DIGEST

PATH = "/download/"


class Downloads:
    """WSGI: answers plain downloads, and leaves all else to another application, Django."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        file_hash = environ["PATH_INFO"].removeprefix(PATH)
        if not HEX_DIGEST.fullmatch(file_hash) or not _is_plain(environ):
            return self._application(environ, start_response)
        try:
            found = answer(environ, file_hash)
        except Exception as error:  # noqa: BLE001  every error is a problem document, or a defect that is logged
            problem = problem_response(error, {})
            problem.headers["Content-Length"] = str(len(problem.content))
            start_response(_line(problem.status_code), list(problem.headers.items()))
            return [problem.content] if environ["REQUEST_METHOD"] == "GET" else ()
        with found.handing_over():
            start_response(_line(found.status), list(found.headers.items()))
        return () if found.body is None else found.body


def _is_plain(environ: WSGIEnvironment) -> bool:
    """Whether a request asks for bytes, of this host, and no other site has a say in what its browser may do."""
    return (
        environ["REQUEST_METHOD"] in ("GET", "HEAD")
        and environ["PATH_INFO"].startswith(PATH)
        and not settings.CORS_ALLOWED_ORIGINS
        and _is_ours(environ.get("HTTP_HOST", ""), tuple(settings.ALLOWED_HOSTS))
    )


def _line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


@lru_cache(maxsize=256)
def _is_ours(host: str, allowed: tuple[str, ...]) -> bool:
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)
