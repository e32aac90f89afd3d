"""The route of a request, for labels: a short list of names, whatever addresses clients ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from django.urls import URLPattern, URLResolver, get_resolver

OTHER = "other"
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
STATIC = "static"  # WhiteNoise serves static files, and Django's list of addresses does not have them.
_FIRST = re.compile(r"\^?/*([\w.-]+)")


def route_of(path: str) -> str:
    """The name of a route: the first part of the path, and ``/*`` if there is more. An unknown first part is OTHER.

    Args:
        path: the path of the request, before Django changes it.
    """
    _, _, path = path.partition("/")
    first, _, rest = path.partition("/")
    if not first and not rest:
        return "/"
    if first not in _known():
        return OTHER
    return f"/{first}/*" if rest else f"/{first}"


def method_of(method: str) -> str:
    """The method of a request, or OTHER for a method that no address takes."""
    return method if method in METHODS else OTHER


@cache
def _known() -> frozenset[str]:
    return frozenset((STATIC, *_first_parts(get_resolver().url_patterns)))


def _first_parts(patterns: Iterable[URLPattern | URLResolver]) -> Iterable[str]:
    for pattern in patterns:
        found = _FIRST.match(str(pattern.pattern))
        if found is not None:
            yield found[1]
        elif isinstance(pattern, URLResolver):
            yield from _first_parts(pattern.url_patterns)
