"""Cursors. A cursor is a text that says where a page of a listing ends. Clients send a cursor to get the next page."""

from __future__ import annotations

import base64
import binascii
import json

from storage.exceptions import InvalidRequest
from storage.models import Position, Sort

FIELD = "cursor"


def made_of(sort: Sort, position: Position) -> str:
    """The cursor of a position in a sort order."""
    text = json.dumps([sort.key, sort.descending, *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(text: str, sort: Sort) -> Position:
    """The position that a cursor stands for.

    Raises:
        InvalidRequest: the text is not a cursor, or is a cursor of another sort order.
    """
    try:
        found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        found = None
    match found:
        case [sort.key, sort.descending, key, int(row_id)] if _fits(sort, key) and 0 <= row_id < 1 << 63:
            return key, row_id
        case [str(), bool(), _, int()]:
            reason = "It is of another sort order: a cursor goes with the sort that it came with."
        case _:
            reason = "Use the one in next."
    raise InvalidRequest("not a cursor", {FIELD: [reason]})


def _fits(sort: Sort, key: object) -> bool:
    if sort.key == "file_name":
        return isinstance(key, str) and "\0" not in key and _is_text(key)
    if sort.key == "file_size":
        return type(key) is int and 0 <= key < 1 << 63
    return key is None


def _is_text(text: str) -> bool:
    """True if the text has no lone surrogates, which no database takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
