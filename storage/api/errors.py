"""Errors become RFC 9457 problem documents here, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import redis
import structlog
from corsheaders.middleware import CorsMiddleware
from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.handlers.wsgi import get_script_name
from django.db import InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import set_script_prefix
from rest_framework import exceptions as drf
from rest_framework.response import Response

from storage import exceptions as domain
from storage.api.metrics import requests
from storage.api.pages.renderer import problem_page, wants_page
from storage.api.wsgi import ids
from storage.models import refusals
from storage.models.refusals import UNAVAILABLE

log = structlog.get_logger(__name__)

RETRY_AFTER = 5
CHALLENGE = 'Basic realm="OCC Storage", charset="UTF-8", Bearer realm="OCC Storage"'
# Scripts of the console get a challenge without Basic: a browser answers a Basic challenge with its own login dialogue.
CHALLENGE_OF_SCRIPTS = 'Bearer realm="OCC Storage"'

STATUS: Mapping[type[Exception], int] = {
    domain.BodyStalled: 408,
    domain.BodyTooLarge: 413,
    domain.ChecksumMismatch: 460,
    domain.ContentGone: 410,
    domain.ContentNotReady: 503,
    domain.ContentUnavailable: 503,
    domain.ClusterUnavailable: 503,
    domain.ByteQuotaExceeded: 507,
    domain.FileQuotaExceeded: 507,
    domain.DeletionFinal: 410,
    domain.Forbidden: 403,
    domain.JobFailed: 503,
    domain.InvalidKey: 400,
    domain.InvalidRequest: 400,
    domain.LengthRequired: 411,
    domain.NoSuchBucket: 404,
    domain.NoSuchChunk: 404,
    domain.NoSuchDeletion: 404,
    domain.NoSuchFile: 404,
    domain.NoSuchJob: 404,
    domain.NoSuchKey: 404,
    domain.NoSuchLink: 404,
    domain.NoSuchNode: 404,
    domain.NoSuchObject: 404,
    domain.NoSuchUpload: 404,
    domain.NotPossible: 409,
    domain.OffsetMismatch: 409,
    domain.OutOfSpace: 507,
    domain.StagingUnavailable: 503,
    domain.TooManyLinks: 409,
    domain.TooManyOwnTransfers: 429,
    domain.TooManyRequests: 429,
    domain.TooManyTransfers: 503,
    domain.Unauthenticated: 401,
    domain.UnsupportedProtocol: 412,
    domain.UploadTakenOver: 409,
    RequestDataTooBig: 413,
    SuspiciousOperation: 400,
    PermissionDenied: 403,
    Http404: 404,
    OperationalError: 503,
    InterfaceError: 503,
    InternalError: 503,
    redis.RedisError: 503,
}
MALFORMED, FORBIDDEN, NOT_FOUND, INTERNAL = "malformed_request", "forbidden", "not_found", "internal_error"
# The codes of the frameworks' exceptions. The classes of the domain's own exceptions carry their codes themselves.
CODE: Mapping[type[Exception], str] = {
    RequestDataTooBig: "form_too_large",
    SuspiciousOperation: MALFORMED,
    PermissionDenied: FORBIDDEN,
    Http404: NOT_FOUND,
    drf.ValidationError: domain.InvalidRequest.code,
    drf.ParseError: MALFORMED,
    drf.PermissionDenied: FORBIDDEN,
    drf.NotFound: NOT_FOUND,
    OperationalError: "database_unavailable",
    InterfaceError: "database_unavailable",
    InternalError: "database_unavailable",
    redis.RedisError: "redis_unavailable",
}


def problem_response(error: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """DRF's exception handler: answer every error of a view with a problem document, in JSON or on a browsable page.

    An error that has no status in STATUS is a defect: it is logged with its traceback, and the client gets a 500.

    Args:
        error: the error.
        context: ``request`` is the request, of DRF or of Django. Without a request, ``environ`` is the WSGI
            environment.
    """
    status = _status(error)
    if status is None:
        log.exception("request.failed", exc_info=error)
        status, code, detail, errors = 500, INTERNAL, "an unexpected error; the log has it", None
    else:
        code = _code(error)
        detail, errors = _words(error, status)
    request = context.get("request")
    environ = context.get("environ") if request is None else request.META
    body = _counted(environ, problem(status, code, detail, errors))
    headers = _headers(error, status)
    if status == 401 and (environ or {}).get("HTTP_X_REQUESTED_WITH"):
        headers = {"WWW-Authenticate": CHALLENGE_OF_SCRIPTS}
    renderer = getattr(request, "accepted_renderer", None)
    if renderer is not None and renderer.format == "api":
        return Response(body, status=status, headers=headers)
    return _json(body, headers) if renderer is not None else _answer(environ, body, headers)


def send_problem(error: Exception, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a WSGI request directly with the problem document of ``error``, bypassing Django."""
    # The addresses on a page begin with this prefix. For other requests, Django's handler sets it.
    set_script_prefix(get_script_name(environ))
    response = problem_response(error, {"environ": environ})
    if settings.CORS_ALLOWED_ORIGINS:
        _allow_origin(response, environ)
    response.headers["Content-Length"] = str(len(response.content))
    start_response(status_line(response.status_code), list(response.headers.items()))
    return () if environ["REQUEST_METHOD"] == "HEAD" else [response.content]


def _allow_origin(response: HttpResponse, environ: WSGIEnvironment) -> None:
    """Add the CORS fields that Django's middleware would have added: without them, a page cannot read the problem."""
    request = HttpRequest()
    request.META, request.method, request.path_info = environ, environ["REQUEST_METHOD"], environ["PATH_INFO"]
    CorsMiddleware(lambda _: response).add_response_headers(request, response)


def status_line(status: int) -> str:
    """The status and its reason phrase, in the form that WSGI asks for."""
    return f"{status} {phrase(status)}"


def phrase(status: int) -> str:
    """The reason phrase of a status. 460 is a status of the tus protocol, which HTTP itself does not know."""
    return "Checksum Mismatch" if status == 460 else HTTPStatus(status).phrase


def problem(status: int, code: str, detail: str, errors: Mapping[str, list[str]] | None = None) -> dict[str, Any]:
    """An RFC 9457 document. The title is the reason phrase of the status, so the type is ``about:blank``.

    Args:
        status: the HTTP status.
        code: the error's code, for programs: see ``docs/errors.md``.
        detail: a description of the error, for people.
        errors: field name → messages.
    """
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": phrase(status),
        "status": status,
        "code": code,
        "detail": detail,
    }
    if errors:
        body["errors"] = errors
    return body


def _counted(environ: Mapping[str, Any] | None, body: dict[str, Any]) -> dict[str, Any]:
    """Count a problem that is the answer to a request, and put the id of the request into its document."""
    if environ is not None and ids.ID in environ:
        body["request_id"] = environ[ids.ID]
    requests.problem(body["code"])
    return body


def _status(error: Exception) -> int | None:
    if isinstance(error, drf.APIException):
        return int(error.status_code)
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return None


def _code(error: Exception) -> str:
    if isinstance(error, domain.StorageError):
        return error.code
    for kind in type(error).__mro__:
        if kind in CODE:
            return CODE[kind]
    return error.default_code if isinstance(error, drf.APIException) else INTERNAL


def _words(error: Exception, status: int) -> tuple[str, Mapping[str, list[str]] | None]:
    if isinstance(error, drf.ValidationError):
        return "some fields are not valid", _by_field(error.detail)
    if isinstance(error, drf.APIException):
        return str(error.detail), None
    if isinstance(error, domain.InvalidRequest):
        return str(error), error.errors
    if isinstance(error, domain.StorageError):
        return str(error), None
    if isinstance(error, RequestDataTooBig):
        return "a field of the form is too large", None
    if isinstance(error, SuspiciousOperation):
        return "the request is malformed", None
    if isinstance(error, UNAVAILABLE):
        log.warning("database.unavailable", error=str(error))
        return refusals.words(error), None
    if isinstance(error, redis.RedisError):
        return "Redis does not answer", None
    return phrase(status), None


def _by_field(detail: Any) -> dict[str, list[str]]:
    if isinstance(detail, Mapping):
        return {
            str(field): [str(message) for message in (messages if isinstance(messages, list) else [messages])]
            for field, messages in detail.items()
        }
    return {"non_field_errors": [str(message) for message in detail]}


def _headers(error: Exception, status: int) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": CHALLENGE}
    if status not in (429, 503):
        return dict(getattr(error, "headers", {}))
    wait = getattr(error, "wait", None)
    headers = {"Retry-After": str(math.ceil(wait) if wait else RETRY_AFTER)}
    if isinstance(error, domain.TooManyRequests):
        headers |= {
            "RateLimit-Limit": str(error.limit),
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": str(error.wait),
        }
    return headers


def _answer(environ: Mapping[str, Any] | None, body: dict[str, Any], headers: Mapping[str, str]) -> HttpResponse:
    if environ is not None and wants_page(environ):
        return problem_page(environ, body, headers)
    return _json(body, headers)


def _json(body: dict[str, Any], headers: Mapping[str, str] | None = None) -> JsonResponse:
    response = JsonResponse(
        body,
        status=body["status"],
        reason=body["title"],
        headers=headers,
        content_type="application/problem+json",
    )
    response.content += b"\n"  # The body stays in one piece: a server may close the connection after the first piece.
    return response


# -- errors that Django itself would answer in HTML -------------------------


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request.META, _counted(request.META, problem(400, MALFORMED, "the request is malformed")), {})


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _answer(request.META, _counted(request.META, problem(403, FORBIDDEN, "not allowed")), {})


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Refuse a form without a good token.

    Django's own page has an inline style, which Content-Security-Policy forbids here.
    """
    detail = "the form has no good token: load its page again, with cookies allowed"
    return _answer(request.META, _counted(request.META, problem(403, FORBIDDEN, detail)), {})


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    detail = f"there is nothing at {request.path}"
    return _answer(request.META, _counted(request.META, problem(404, NOT_FOUND, detail)), {})


def server_error(request: HttpRequest) -> HttpResponse:
    return _json(_counted(request.META, problem(500, INTERNAL, "an unexpected error; the log has it")))
