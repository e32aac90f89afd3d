"""The hosts for which requests are answered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http.request import validate_host
from django.utils.http import parse_header_parameters

from storage.api.errors import send_problem
from storage.exceptions import InvalidRequest

# A name may have underscores, as names of containers do, and a port may be empty (RFC 3986 §3.2).
HOST = re.compile(r"(?P<name>[a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{0,5}))?", re.IGNORECASE | re.ASCII)
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")  # These hosts are always allowed, for this machine's health checks.
SHOWN = 100  # At most this many characters of a refused host are logged.


class Hosts:
    """WSGI middleware that refuses requests for hosts outside ALLOWED_HOSTS.

    The log line of the request has the host.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if host_of(environ) is not None:
            return self._application(environ, start_response)
        structlog.contextvars.bind_contextvars(refused_host=_asked(environ)[:SHOWN])
        return send_problem(InvalidRequest("this host is not served: see ALLOWED_HOSTS"), environ, start_response)


class Request(WSGIRequest):
    """Django's request, except that it reads the host as ``Hosts`` does: Django itself refuses an underscore."""

    def get_host(self) -> str:
        """The host of the request, as ``host_of`` reads it.

        Raises:
            DisallowedHost: the host is none of ALLOWED_HOSTS.
        """
        host = host_of(self.META)
        if host is None:
            raise DisallowedHost("the host is none of ALLOWED_HOSTS")
        return host

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        """Read the Content-Type. The charset of the Content-Type is ignored: a query is UTF-8, and the parser of a form
        reads the charset itself.

        Raises:
            InvalidRequest: the field is malformed.
        """
        try:
            self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except (ValueError, LookupError, TypeError):
            raise InvalidRequest("the Content-Type is malformed", {"Content-Type": ["Malformed."]}) from None


class Handler(WSGIHandler):
    """Django's WSGI handler with the ``Request`` of this module.

    A path that is not UTF-8 is refused, because Django would turn an invalid byte into text such as ``%FF``.
    """

    request_class = Request

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        try:
            environ["PATH_INFO"].encode("latin-1").decode()
        except UnicodeDecodeError:
            return send_problem(InvalidRequest("the path of the address is not UTF-8"), environ, start_response)
        try:
            return super().__call__(environ, start_response)
        except InvalidRequest as error:  # ``Request`` refuses a malformed Content-Type.
            return send_problem(error, environ, start_response)


def host_of(environ: Mapping[str, Any], *others: str) -> str | None:
    """The host that a request is for, with the port if it names one; None if the host is not served here.

    Args:
        environ: the WSGI environment of the request.
        others: names that are served besides ALLOWED_HOSTS. A dot in front stands for all sub-domains.
    """
    return _allowed(_asked(environ), (*settings.ALLOWED_HOSTS, *LOOPBACK, *others))


def _asked(environ: Mapping[str, Any]) -> str:
    host: str | None = environ.get("HTTP_HOST")
    return f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}" if host is None else host


@lru_cache(maxsize=256)
def _allowed(host: str, allowed: tuple[str, ...]) -> str | None:
    parts = HOST.fullmatch(host)
    if parts is None or not validate_host(parts["name"].lower().removesuffix("."), allowed):
        return None
    return f"{parts['name']}:{parts['port']}" if parts["port"] else parts["name"]
