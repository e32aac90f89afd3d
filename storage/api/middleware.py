from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import structlog
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from storage.conf import configuration

log = structlog.get_logger(__name__)


class StallTimeout:
    """No client may hold a thread by neither sending nor reading: its socket times out after STALL_TIMEOUT.

    gunicorn's threads have no such limit of their own.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        socket = request.META.get("gunicorn.socket")
        if socket is not None:
            socket.settimeout(configuration().stall_timeout)
        return self._get_response(request)


class RequestLog:
    """One line in the log for each request, when it has been answered; what is logged meanwhile carries its id.

    The id is the one that ``X-Request-ID`` gives, or a new one.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        began_at = time.monotonic()
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").partition(",")[0].strip()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            request_id=request.META.get("HTTP_X_REQUEST_ID") or str(uuid.uuid4()),
            ip=forwarded or request.META.get("REMOTE_ADDR", ""),
        )
        response = self._get_response(request)

        def finished(**more: Any) -> None:
            log.log(
                _level(response.status_code if "error" not in more else 500),
                "request_finished",
                request=f"{request.method} {request.get_full_path()}",
                code=response.status_code,
                seconds=round(time.monotonic() - began_at, 4),
                **more,
            )
            structlog.contextvars.clear_contextvars()

        if isinstance(response, StreamingHttpResponse):
            response.streaming_content = _Stream(response.streaming_content, finished)  # type: ignore[arg-type]
        else:
            finished()
        return response


class _Stream:
    """A body that says when it has been sent, and how much of it."""

    def __init__(self, pieces: Iterable[bytes], finished: Callable[..., None]) -> None:
        self._pieces = pieces
        self._finished = finished
        self._said: dict[str, Any] = {"bytes": 0}
        self._is_open = True

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._pieces:
                yield piece
                self._said["bytes"] += len(piece)  # the next is asked for when this one has been taken
        except Exception as error:
            self._said["error"] = repr(error)
            raise

    def close(self) -> None:
        """Called by Django when the server is through with the response; perhaps more than once."""
        if self._is_open:
            self._is_open = False
            self._finished(**self._said)


def _level(status: int) -> int:
    return logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO
