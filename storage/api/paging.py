"""Pages of lists: how many entries a page has, and the address of the next page."""

from __future__ import annotations

from urllib.parse import urlencode

from rest_framework.request import Request

from storage.api.cursors import FIELD as CURSOR
from storage.api.parameters import whole_number

LIMIT = "limit"
PAGE_LIMIT = 1000


def limit_of(request: Request) -> int:
    """The number of entries that a page has at most.

    Raises:
        InvalidRequest: ``limit`` is not a number from 1 to ``PAGE_LIMIT``.
    """
    return whole_number(request, LIMIT, PAGE_LIMIT, 1, PAGE_LIMIT)


def address_of_next(request: Request, cursor: str) -> str:
    """The address of the page that begins at a cursor, with the same query."""
    query = urlencode({**request.query_params.dict(), CURSOR: cursor})
    return request.build_absolute_uri(f"{request.path}?{query}")
