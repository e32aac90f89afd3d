"""Cursors. A cursor is a text that says where a page of a listing ends. Clients send a cursor to get the next page."""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from datetime import datetime
from typing import cast

from storage.exceptions import InvalidRequest
from storage.models import Position, Sort
from storage.services.activity import Place

FIELD = "cursor"


def made_of(sort: Sort, position: Position | str) -> str:
    """The cursor of a position in a sort order, or of a folder, a key or the name of a bucket."""
    place = (position,) if isinstance(position, str) else position
    return _encoded(json.dumps([sort.key, sort.descending, *place], separators=(",", ":")))


def read(text: str, sort: Sort) -> Position:
    """The position that a cursor stands for.

    Raises:
        InvalidRequest: the text is not a cursor, or is a cursor of another sort order.
    """
    found = _loaded(text)
    match found:
        case [sort.key, sort.descending, key, int(row_id)] if _fits(sort, key) and 0 <= row_id < 1 << 63:
            return cast("str | int | None", key), row_id
    raise _refusal(found)


def read_in_folder(text: str, sort: Sort) -> Position | str:
    """The position, or the folder, that the cursor of a listing of one folder stands for.

    Raises:
        InvalidRequest: as for ``read``.
    """
    match _loaded(text):
        case [sort.key, sort.descending, str(folder)] if folder.endswith("/") and _is_text(folder):
            return folder
    return read(text, sort)


def read_text(text: str, sort: Sort) -> str:
    """The key, the folder or the name of a bucket that a cursor stands for.

    Raises:
        InvalidRequest: as for ``read``.
    """
    found = _loaded(text)
    match found:
        case [sort.key, sort.descending, str(last)] if _is_text(last):
            return last
    raise _refusal(found)


def _loaded(text: str) -> object:
    """The value that a cursor encodes; None if the text is not a cursor."""
    try:
        return json.loads(_decoded(text))
    except (binascii.Error, ValueError, RecursionError):
        return None


def _refusal(found: object) -> InvalidRequest:
    match found:
        case [str(), bool(), _, int()] | [str(), bool(), str()]:
            reason = "It is of another listing: a cursor goes with the sort and the delimiter that it came with."
        case _:
            reason = "Use the one in next."
    return InvalidRequest("not a cursor", {FIELD: [reason]})


def made_of_moment(at: datetime, row_id: uuid.UUID) -> str:
    """The cursor of an entry of a list by time, the newest first."""
    return _encoded(f"{at.isoformat()} {row_id}")


def read_moment(text: str) -> tuple[datetime, uuid.UUID]:
    """The time and the id of the entry after which a page begins.

    Raises:
        InvalidRequest: the text is not a cursor.
    """
    try:
        at, _, row_id = _decoded(text).decode().partition(" ")
        return _moment(at), uuid.UUID(row_id)
    except (binascii.Error, ValueError):
        raise _refusal(None) from None


def made_of_place(place: Place) -> str:
    """The cursor of a place in the activity."""
    acts, file_id = place
    parts = [*((acts[0].isoformat(), acts[1]) if acts else (None, None)), file_id]
    return _encoded(json.dumps(parts))


def read_place(text: str) -> Place:
    """The place that a cursor stands for.

    Raises:
        InvalidRequest: the text is not a cursor.
    """
    try:
        match _loaded(text):
            case [None, None, int(file_id)] if _is_id(file_id):
                return None, file_id
            case [str(at), int(row_id), None] if _is_id(row_id):
                return (_moment(at), row_id), None
            case [str(at), int(row_id), int(file_id)] if _is_id(row_id) and _is_id(file_id):
                return (_moment(at), row_id), file_id
    except ValueError:
        pass
    raise _refusal(None)


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


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
        return isinstance(key, str) and _is_text(key)
    if sort.key == "file_size":
        return type(key) is int and 0 <= key < 1 << 63
    return key is None


def _is_text(text: str) -> bool:
    """True if the text has neither NUL nor lone surrogates, which no database takes."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
