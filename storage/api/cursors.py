"""Cursors. A cursor is a text that says where a page of a listing ends. Clients send a cursor to get the next page."""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from datetime import datetime

from storage.exceptions import InvalidRequest
from storage.models import Position, Sort
from storage.services.activity import Place

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
        found = json.loads(_decoded(text))
    except (binascii.Error, ValueError, RecursionError):
        found = None
    match found:
        case [sort.key, sort.descending, key, int(row_id)] if _fits(sort, key) and 0 <= row_id < 1 << 63:
            return key, row_id
        case [str(), bool(), _, int()]:
            reason = "It is of another sort order: a cursor goes with the sort that it came with."
        case _:
            raise _refusal()
    raise _refusal(reason)


def made_of_moment(at: datetime, row_id: uuid.UUID) -> str:
    """The cursor of an entry of a list by time, the newest first."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {row_id}".encode()).decode().rstrip("=")


def read_moment(text: str) -> tuple[datetime, uuid.UUID]:
    """The time and the id of the entry after which a page begins.

    Raises:
        InvalidRequest: the text is not a cursor.
    """
    try:
        at, _, row_id = _decoded(text).decode().partition(" ")
        return _moment(at), uuid.UUID(row_id)
    except (binascii.Error, ValueError):
        raise _refusal() from None


def made_of_place(place: Place) -> str:
    """The cursor of a place in the activity."""
    acts, file_id = place
    parts = [*((acts[0].isoformat(), acts[1]) if acts else (None, None)), file_id]
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def read_place(text: str) -> Place:
    """The place that a cursor stands for.

    Raises:
        InvalidRequest: the text is not a cursor.
    """
    try:
        match json.loads(_decoded(text)):
            case [None, None, int(file_id)] if _is_id(file_id):
                return None, file_id
            case [str(at), int(row_id), None] if _is_id(row_id):
                return (_moment(at), row_id), None
            case [str(at), int(row_id), int(file_id)] if _is_id(row_id) and _is_id(file_id):
                return (_moment(at), row_id), file_id
    except (binascii.Error, ValueError, RecursionError):
        pass
    raise _refusal()


def _refusal(reason: str = "Use the one in next.") -> InvalidRequest:
    return InvalidRequest("not a cursor", {FIELD: [reason]})


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _is_id(number: int) -> bool:
    return type(number) is int and 0 <= number < 1 << 63


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
