"""WSGI middleware (PEP 3333) for every request. Django's own middleware sees only requests that reach Django."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog

from storage import acting
from storage.api.metrics import requests
from storage.api.metrics.routes import route_of as route_of_path
from storage.api.wsgi import ids
from storage.api.wsgi.forwarding import PEER

log = structlog.get_logger(__name__)

PROBES = ("GET /health", "GET /livez", "GET /metrics", "GET /readyz")


def route_in_path(environ: WSGIEnvironment) -> str:
    """The name under which metrics count a request to the API, such as ``/upload`` or ``/download/*``."""
    return route_of_path(environ["PATH_INFO"])


class RequestLog:
    """Middleware that counts each answered request, and logs one line for it. The answer, and every line that is logged
    during the request, have the id of the request.

    In the line ``ip`` is the client's address. If a trusted proxy is in between, ``peer`` is the proxy's address.
    """

    def __init__(
        self, application: WSGIApplication, *, route_of: Callable[[WSGIEnvironment], str] = route_in_path
    ) -> None:
        """
        Args:
            application: the WSGI application that answers the requests.
            route_of: a function that returns the route of a request, for the metrics.
        """
        self._application = application
        self._route_of = route_of

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began_at = time.monotonic()
        asked = _asked(environ)  # This is done first, because Django changes the path in place.
        counted = requests.Request(self._route_of(environ), environ["REQUEST_METHOD"])
        request_id = environ[ids.ID] = ids.id_for(environ)
        acting.begin(None)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            request_id=request_id,
            ip=environ.get("REMOTE_ADDR", ""),
            **({"peer": environ[PEER]} if PEER in environ else {}),
        )
        code = 500

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            nonlocal code
            code = int(status[:3])
            counted.answers(time.monotonic() - began_at)
            return start_response(status, [*headers, (ids.FIELD, request_id)], *exc_info)

        def finished(**more: Any) -> None:
            seconds = time.monotonic() - began_at
            status = 500 if "error" in more else code
            counted.ended(status, seconds)
            log.log(
                _level(status, asked),
                "request_finished",
                request=asked,
                code=code,
                seconds=round(seconds, 4),
                **more,
            )
            structlog.contextvars.clear_contextvars()
            acting.begin(None)

        try:
            pieces = self._application(environ, start)
        except Exception as error:
            finished(error=repr(error))
            raise
        return _Body(pieces, counted.sent, finished, is_sent=environ["REQUEST_METHOD"] != "HEAD")


class _Body:
    """A body that reports when and how many of its bytes have been sent. The server sends no body after a HEAD."""

    def __init__(
        self, pieces: Iterable[bytes], sent: Callable[[int], None], finished: Callable[..., None], *, is_sent: bool
    ) -> None:
        self._pieces = pieces
        self._sent = sent
        self._finished = finished
        self._is_sent = is_sent
        self._said: dict[str, Any] = {"bytes": 0}

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._pieces:
                yield piece
                # The server asks for the next piece after it has taken this piece.
                if self._is_sent:
                    self._said["bytes"] += len(piece)
                    self._sent(len(piece))
        except Exception as error:
            self._said["error"] = repr(error)
            raise

    def close(self) -> None:
        """End the response. The server calls this method once, when it needs the response no more."""
        try:
            if (close := getattr(self._pieces, "close", None)) is not None:
                close()
        finally:
            self._finished(**self._said)


def _asked(environ: WSGIEnvironment) -> str:
    path = quote(environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"], safe="/:@&+$,!~*'()", encoding="latin-1")
    query = environ.get("QUERY_STRING", "")
    return f"{environ['REQUEST_METHOD']} {path}{'?' * bool(query)}{query}"


def _level(status: int, asked: str) -> int:
    if status == 200 and asked in PROBES:
        return logging.DEBUG  # Programs send these requests every few seconds.
    return logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO
