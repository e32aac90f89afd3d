"""The header fields that tell browsers what they may do with an answer, for all answers of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from storage.conf import configuration

# Pages load styles, scripts and pictures from this service only. Swagger UI and the administration have pictures in
# ``data:`` addresses.
PAGE = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
DATA = "default-src 'none'; frame-ancestors 'none'"  # An answer with this policy runs nothing if a browser shows it.
ORIGIN, POLICY = "Cross-Origin-Resource-Policy", "Content-Security-Policy"
PROTECTION = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    ORIGIN: "same-origin",
    "X-Frame-Options": "DENY",
    POLICY: DATA,
}
PAGES = {**PROTECTION, POLICY: PAGE}
CACHES, PRIVATE, PUBLIC = "Cache-Control", "private", "public"


class Protection:
    """Middleware that gives every answer the fields of PROTECTION, unless the answer has such a field already.

    While keys are on, this middleware also marks every answer as private (``Cache-Control``). The files of the pages
    are public.

    This middleware does the work of Django's SecurityMiddleware and XFrameOptionsMiddleware, which do not see every
    answer.
    """

    def __init__(self, application: WSGIApplication, *, is_for_objects: bool = False) -> None:
        """
        Args:
            application: the WSGI application that answers the requests.
            is_for_objects: True if the answers are objects of S3's clients. The objects say themselves what caches may
                do, and pages of other sites may show them; a browser runs nothing in them.
        """
        self._application = application
        self._is_for_objects = is_for_objects

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Pages of other sites may embed the file of a share link. Django changes the path in place, so the path is read
        # first.
        is_shared = self._is_for_objects or environ["PATH_INFO"].lower().startswith("/share/")
        origin = {ORIGIN: "cross-origin"} if is_shared else {}

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            given = {**origin, **dict(headers)}
            is_page = given.get("Content-Type", "").startswith("text/html") and not self._is_for_objects
            fields = PAGES if is_page else PROTECTION
            headers += [*origin.items(), *((name, value) for name, value in fields.items() if name not in given)]
            if environ["wsgi.url_scheme"] == "https" and (seconds := configuration().hsts_seconds):
                headers.append(("Strict-Transport-Security", f"max-age={seconds}"))
            is_private = configuration().auth_required and not self._is_for_objects
            return start_response(status, _private(headers) if is_private else headers, *exc_info)

        return self._application(environ, start)


def _private(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Tell caches that are shared by several clients not to store an answer, unless the answer says that they may."""
    told = [part.strip() for name, value in headers if name == CACHES for part in value.split(",")]
    if PUBLIC in told:
        return headers
    others = [(name, value) for name, value in headers if name != CACHES]
    return [*others, (CACHES, ", ".join([PRIVATE, *(part for part in told if part != PRIVATE)]))]
