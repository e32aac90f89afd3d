"""Conditional requests (RFC 9110 §13), for what has a strong entity tag and no date of modification.

Without that date ``If-Modified-Since`` and ``If-Unmodified-Since`` say nothing, and no date is the right ``If-Range``.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.utils.http import parse_etags
from rest_framework.exceptions import APIException


class PreconditionFailed(APIException):
    """``If-Match`` names other versions than the one that is here."""

    status_code = 412
    default_detail = "If-Match does not name this file"


def is_known(environ: Mapping[str, str], etag: str) -> bool:
    """Whether the client of a GET or HEAD has what it asks for already, and is to be told so: 304.

    Args:
        environ: the request's, of WSGI: to take its fields from there costs nothing.
        etag: of what is here.

    Raises:
        PreconditionFailed: it wants something else.
    """
    wanted = environ.get("HTTP_IF_MATCH")
    if wanted is not None and not {"*", etag} & set(parse_etags(wanted)):
        raise PreconditionFailed
    known = environ.get("HTTP_IF_NONE_MATCH")
    return known is not None and bool({"*", etag, f"W/{etag}"} & set(parse_etags(known)))


def range_applies(environ: Mapping[str, str], etag: str) -> bool:
    """Whether ``Range`` counts: the part that the client has is of this version, as far as it says."""
    return environ.get("HTTP_IF_RANGE", etag).strip() == etag
