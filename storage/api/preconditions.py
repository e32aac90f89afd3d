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


def is_known(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the client of a GET or HEAD has what it asks for already, and is to be told so: 304.

    Raises:
        PreconditionFailed: it wants something else.
    """
    wanted = headers.get("If-Match")
    if wanted is not None and not {"*", etag} & set(parse_etags(wanted)):
        raise PreconditionFailed
    tags = parse_etags(headers.get("If-None-Match", ""))
    return bool({"*", etag, f"W/{etag}"} & set(tags))


def range_applies(headers: Mapping[str, str], etag: str) -> bool:
    """Whether ``Range`` counts: the part that the client has is of this version, as far as it says."""
    return headers.get("If-Range", etag).strip() == etag
