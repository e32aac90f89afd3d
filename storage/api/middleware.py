from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from storage.conf import configuration


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
