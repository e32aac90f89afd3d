"""Query parameters: each endpoint says which parameters it takes, and any other parameter is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from django.http import QueryDict
from rest_framework.request import Request

from storage.exceptions import InvalidRequest
from storage.models import SORT_KEYS, Sort

DELIMITER = "delimiter"


def require_known(environ: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse query parameters that the endpoint does not take.

    Args:
        environ: the WSGI environment of the request.
        known: the parameters that the endpoint takes.

    Raises:
        InvalidRequest: the query has another parameter. A misspelt parameter must not be taken for an absent one.
    """
    query = environ.get("QUERY_STRING")
    unknown = [name for name in QueryDict(query) if name not in known] if query else []
    if unknown:
        taken = f"Unknown; known are {', '.join(sorted(known))}." if known else "Unknown; there are none here."
        raise InvalidRequest(f"unknown in the query: {', '.join(unknown)}", {name: [taken] for name in unknown})


def whole_number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """The number that the query parameter ``name`` gives, or ``default`` without the parameter.

    Raises:
        InvalidRequest: the value is not a whole number from ``low`` to ``high``.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise InvalidRequest(f"{name} is a number from {low} to {high}", {name: [f"{low} to {high}."]})
    return int(text)


def plain_text(request: Request, name: str) -> str:
    """The text that the query parameter ``name`` gives; empty without the parameter.

    Raises:
        InvalidRequest: the text has a NUL or surrogates, which no text in the database has.
    """
    text = request.query_params.get(name, "")
    if re.search(r"[\x00\ud800-\udfff]", text):
        raise InvalidRequest(f"{name} is text in UTF-8 without NUL", {name: ["Text in UTF-8 without NUL."]})
    return text


def sort_order(request: Request, name: str) -> Sort:
    """The sort order that the query parameter ``name`` gives, such as ``-file_size``; by default the order of upload.

    Raises:
        InvalidRequest: the value is not a sort order.
    """
    text = request.query_params.get(name, Sort().key)
    key = text.removeprefix("-")
    if key not in SORT_KEYS:
        orders = ", ".join(f"{key} or -{key}" for key in SORT_KEYS)
        raise InvalidRequest(f"{name} is no order of files", {name: [f"One of {orders}."]})
    return Sort(key, descending=text.startswith("-"))


def one_of(request: Request, name: str, known: Collection[str]) -> str | None:
    """The word that the query parameter ``name`` gives; None without the parameter.

    Raises:
        InvalidRequest: the value is none of the known words.
    """
    text = request.query_params.get(name)
    if text is not None and text not in known:
        raise InvalidRequest(f"{name} is not known", {name: [f"One of {', '.join(known)}."]})
    return text


def switch(request: Request, name: str, *, default: bool = False) -> bool:
    """The yes or no that the query parameter ``name`` gives, or ``default`` without the parameter.

    Raises:
        InvalidRequest: the value is neither yes nor no.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.lower() in ("1", "true", "yes"):
        return True
    if text.lower() in ("0", "false", "no"):
        return False
    raise InvalidRequest(f"{name} is true or false", {name: ["true or false."]})
