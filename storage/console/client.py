"""A client of the API within the process: a page can show nothing that the API would not answer to its user.

A request goes to the view that answers clients at the same path. The view gets the principal of the page's request,
checks scopes and owners, and answers as it answers everybody.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import resolve
from rest_framework.response import Response

from storage.accounts.principals import IDENTITY, Principal

JSON = "application/json"
# These fields of the page's request are not passed on: they are not about what the page asks the API for.
OF_THE_PAGE = (
    "HTTP_ACCEPT", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE",
    "HTTP_IF_RANGE", "HTTP_RANGE", "HTTP_PREFER", "HTTP_TRANSFER_ENCODING", "CONTENT_TYPE", "CONTENT_LENGTH",
)  # fmt: skip
OF_THE_BODY = ("HTTP_TRANSFER_ENCODING", "CONTENT_TYPE", "CONTENT_LENGTH", "wsgi.input")


@dataclass(frozen=True)
class Answer:
    """The answer of the API.

    Attributes:
        status: the HTTP status.
        document: the JSON of the answer; an empty mapping if it has none.
        headers: the header fields.
    """

    status: int
    document: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return self.status < 400


class Api:
    """The API, asked by the page's user.

    Attributes:
        request: the request of the page.
        principal: the page's user.
    """

    def __init__(self, request: HttpRequest, principal: Principal) -> None:
        self.request = request
        self.principal = principal

    def get(self, path: str, **query: Any) -> Answer:
        """Ask for the JSON document at a path. Parameters that are None or empty are not sent."""
        return _read(self._ask("GET", path, query))

    def send(self, method: str, path: str, document: Mapping[str, Any] | None = None, **query: Any) -> Answer:
        """Send a JSON document, or no body at all, with a method other than GET."""
        body = b"" if document is None else json.dumps(document).encode()
        more = {"CONTENT_TYPE": JSON, "CONTENT_LENGTH": str(len(body))} if body else {}
        return _read(self._ask(method, path, query, **more, **{"wsgi.input": io.BytesIO(body)}))

    def plan(self, path: str) -> Answer:
        """Ask what an operation would do. A plan changes nothing, so a link on another site may lead to it."""
        own_page = {"HTTP_SEC_FETCH_SITE": "same-origin", "wsgi.input": io.BytesIO()}
        return _read(self._ask("POST", path, {"dry_run": "true"}, **own_page))

    def forward(self, path: str) -> Answer:
        """Send the page's own body on to a path, as it arrives: an upload is never held in memory."""
        passed = {name: self.request.META[name] for name in OF_THE_BODY if name in self.request.META}
        return _read(self._ask("POST", path, {"distribution": "false"}, **passed))

    def open(self, path: str, *, wanted: str = "", **query: Any) -> HttpResponseBase:
        """Ask for bytes: all of them or, with a ``Range`` in ``wanted``, some. The caller closes the answer."""
        return self._ask("GET", path, query, **({"HTTP_RANGE": wanted} if wanted else {}))

    def head_of(self, path: str, size: int, **query: Any) -> bytes:
        """The first bytes at a path, ``size`` of them at most; empty if they cannot be read."""
        response = self.open(path, wanted=f"bytes=0-{size - 1}", **query)
        try:
            if response.status_code >= 400 or not isinstance(response, StreamingHttpResponse):
                return b""
            pieces: Any = response.streaming_content
            return b"".join(pieces)[:size]
        finally:
            response.close()

    def _ask(self, method: str, path: str, query: Mapping[str, Any], **more: Any) -> HttpResponseBase:
        environ = {name: value for name, value in self.request.META.items() if name not in OF_THE_PAGE}
        # The entries ``occ.…`` say what the API found out about the page's own request: they do not hold for this
        # request.
        environ = {name: value for name, value in environ.items() if not name.startswith("occ.")}
        environ |= {
            "REQUEST_METHOD": method,
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": urlencode({name: value for name, value in query.items() if value not in (None, "")}),
            "HTTP_ACCEPT": JSON,
            IDENTITY: self.principal,
            **more,
        }
        request = type(self.request)(environ)  # type: ignore[call-arg]  # it is a WSGIRequest
        view, positional, named = resolve(path)
        response: HttpResponseBase = view(request, *positional, **named)
        return response.render() if isinstance(response, Response) else response


def _read(response: HttpResponseBase) -> Answer:
    content: bytes = getattr(response, "content", b"")
    try:
        document = json.loads(content) if content else {}
    finally:
        response.close()
    return Answer(response.status_code, document, dict(response.items()))
