"""Conditional requests (RFC 9110 §13), evaluated in the order of its §13.2.2, by pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from django.utils import http
from rest_framework.exceptions import APIException

SAFE = ("GET", "HEAD")


class PreconditionFailed(APIException):
    """The resource is not in the state that the client requires."""

    status_code = 412
    default_code = "precondition_failed"

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} does not hold for this file")


def check(environ: Mapping[str, str], etag: str, modified: datetime) -> bool:
    """Evaluate the conditions of a request for an existing resource, before the request is carried out.

    A date that cannot be read is ignored, as §13.1 asks.

    Args:
        environ: the WSGI environment of the request; ``REQUEST_METHOD`` decides which conditions count.
        etag: the strong entity tag of the resource, with its quotation marks.
        modified: the time of the resource's last modification, as in ``Last-Modified``.

    Returns:
        True if the client of a GET or HEAD has this version already: the answer is 304. False if the request goes on.

    Raises:
        PreconditionFailed: the request must not be carried out, and the answer is 412.
    """
    is_safe = environ["REQUEST_METHOD"] in SAFE
    if (wanted := environ.get("HTTP_IF_MATCH")) is not None:
        if not {"*", etag} & set(http.parse_etags(wanted)):
            raise PreconditionFailed("If-Match")
    elif _unchanged_since(modified, environ.get("HTTP_IF_UNMODIFIED_SINCE")) is False:
        raise PreconditionFailed("If-Unmodified-Since")
    if (known := environ.get("HTTP_IF_NONE_MATCH")) is not None:
        is_known = bool({"*", etag, f"W/{etag}"} & set(http.parse_etags(known)))
        if is_known and not is_safe:
            raise PreconditionFailed("If-None-Match")
        return is_known
    return is_safe and _unchanged_since(modified, environ.get("HTTP_IF_MODIFIED_SINCE")) is True


def require(environ: Mapping[str, str], etags: Collection[str], modified: datetime) -> None:
    """Evaluate the conditions of a request that changes an existing resource with several entity tags.

    Args:
        environ: the WSGI environment of the request.
        etags: the strong entity tags by which a client may name the resource.
        modified: as for ``check``.

    Raises:
        PreconditionFailed: the change must not be made, and the answer is 412.
    """
    wanted = environ.get("HTTP_IF_MATCH")
    named = set(http.parse_etags(wanted)) & set(etags) if wanted is not None else set()
    for etag in named or list(etags)[:1]:
        check(environ, etag, modified)


def range_applies(environ: Mapping[str, str], etag: str, modified: datetime) -> bool:
    """True if ``Range`` counts (§13.1.5): ``If-Range`` names this version of the file, or is absent.

    A date in ``If-Range`` must be exactly that of ``Last-Modified``. The date is a strong validator (§8.8.2.2), because
    the bytes of a file never change.
    """
    field = environ.get("HTTP_IF_RANGE")
    if field is None or field.strip() == etag:
        return True
    return http.parse_http_date_safe(field.strip()) == int(modified.timestamp())


def http_date(time: datetime) -> str:
    """A time as HTTP writes it (RFC 9110 §5.6.7), rounded down to a whole second."""
    return http.http_date(int(time.timestamp()))


def _unchanged_since(modified: datetime, field: str | None) -> bool | None:
    """True if nothing has changed after the date in ``field``; None if ``field`` has no date that can be read."""
    date = None if field is None else http.parse_http_date_safe(field.strip())
    return None if date is None else int(modified.timestamp()) <= date
