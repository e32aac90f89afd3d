"""What the lists and pages have in common: columns under plain names, short texts, one form of time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.utils.html import format_html

from storage import plans

MOST = 32  # A name of more characters is cut in a list.
ENDING = 10  # The number of last characters of a cut name that are shown: often a number and a file type.
HASH_CUT = 13  # The number of characters that a hash is cut to.
NOTHING = "-"  # Django shows the same text where a row has no value.

Column = Callable[[Any], Any]


def elided(text: str, most: int = MOST) -> str:
    """The text, with its middle left out if it has more than ``most`` characters.

    The title of a text that was cut has the whole text.
    """
    if len(text) <= most:
        return text
    ending = min(ENDING, most // 3)
    return format_html('<span title="{}">{}…{}</span>', text, text[: most - ending - 1].rstrip(), text[-ending:])


def short_hash(file_hash: str | None) -> str:
    """The first and the last digits of a hash, in one line. The title of this short text has the whole hash."""
    return unbroken(elided(file_hash, HASH_CUT)) if file_hash else NOTHING


def moment(time: datetime | None) -> str:
    """A time as all pages show it, in UTC and in one line."""
    return unbroken(f"{time:%Y-%m-%d %H:%M}") if time else NOTHING


def size(count: float) -> str:
    """A number of bytes, in one line."""
    return unbroken(plans.size(count))


def unbroken(text: str) -> str:
    """The text in one line, however narrow its column is."""
    return format_html('<span class="nowrap">{}</span>', text)


def shown(name: str, description: str, form: Callable[[Any], Any] | None = None, *, boolean: bool = False) -> Column:
    """A column, or a line of a page, that shows a field of a row under another name.

    Args:
        name: the field, which rows can also be sorted by.
        description: the name of the column.
        form: a function that makes a text of the value; by default times are shown by ``moment``.
        boolean: True if the value is shown as an icon.
    """

    @admin.display(description=description, ordering=name, boolean=boolean or None)
    def column(row: Any) -> Any:
        value = getattr(row, name)
        if form is not None:
            return form(value)
        if boolean:
            return value
        return moment(value) if isinstance(value, datetime) else NOTHING if value in (None, "") else value

    column.__name__ = f"shown_{name}"  # Under the field's own name, Django would add the help text of the form.
    return column


class Uploaded(admin.DateFieldListFilter):
    """The filter by the time at which a row was made, for files."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.title = "time of upload"


class Requested(admin.DateFieldListFilter):
    """The filter by the time at which a row was made, for jobs."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.title = "time of request"
