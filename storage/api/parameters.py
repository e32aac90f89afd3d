"""The query of an address: each endpoint says which parameters it takes, and any other is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from django.http import QueryDict
from rest_framework.request import Request

from storage.exceptions import InvalidRequest


def require_known(environ: Mapping[str, Any], known: Collection[str]) -> None:
    """
    Args:
        environ: of the request, as in WSGI.
        known: the parameters that the endpoint takes.

    Raises:
        InvalidRequest: the query has others; a parameter that is misspelt must not be taken for one that is not there.
    """
    query = environ.get("QUERY_STRING")
    unknown = [name for name in QueryDict(query) if name not in known] if query else []
    if unknown:
        taken = f"Unknown; known are {', '.join(sorted(known))}." if known else "Unknown; there are none here."
        raise InvalidRequest(f"unknown in the query: {', '.join(unknown)}", {name: [taken] for name in unknown})


def whole_number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A number of the query.

    Raises:
        InvalidRequest: it is none, or out of range.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise InvalidRequest(f"{name} is a number from {low} to {high}", {name: [f"{low} to {high}."]})
    return int(text)


def switch(request: Request, name: str, *, default: bool = False) -> bool:
    """A yes or no of the query.

    Raises:
        InvalidRequest: it is neither.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.lower() in ("1", "true", "yes"):
        return True
    if text.lower() in ("0", "false", "no"):
        return False
    raise InvalidRequest(f"{name} is true or false", {name: ["true or false."]})
