"""File names: pure functions that check names and read them from addresses.

A name is kept as it was written. A text that cannot be a name is refused and never changed into another name.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from storage.exceptions import InvalidRequest
from storage.models.names import fault_of, fault_of_part

FIELD = "file_name"


def valid_name(text: str, field: str = FIELD) -> str:
    """Return a text unchanged if it can be the name of a file.

    Args:
        text: the name, in which ``decoded`` marks bytes that are not UTF-8.
        field: the part of the request that errors are reported for.

    Raises:
        InvalidRequest: the text cannot be a name; the message says why.
    """
    if reason := fault_of(text):
        raise InvalidRequest("this cannot be the name of a file", {field: [reason]})
    return text


def valid_part(text: str, field: str) -> str:
    """Return a text unchanged if the names of files can contain it.

    Args:
        text: the beginning or a part of a name; empty if every name is wanted.
        field: the part of the request that errors are reported for.

    Raises:
        InvalidRequest: no name can contain the text; the message says why.
    """
    if reason := fault_of_part(text):
        raise InvalidRequest("no file has a name with this in it", {field: [reason]})
    return text


def decoded(data: bytes) -> str:
    """UTF-8 as text. Each byte that is not UTF-8 becomes a lone surrogate, which ``valid_name`` refuses."""
    return data.decode(errors="surrogateescape")


def chosen_name(environ: Mapping[str, str]) -> str | None:
    """The name that the query's ``file_name`` chooses among the names of the same bytes; None without the parameter.

    Raises:
        InvalidRequest: the value cannot be a name.
    """
    name = _in_query(environ, FIELD)
    return None if name is None else valid_name(name)


def in_query(environ: Mapping[str, str], field: str = FIELD) -> str:
    """A parameter of the query, in which lone surrogates stand for bytes that are not UTF-8.

    The last value counts if there are several. The text is empty without the parameter.
    """
    return _in_query(environ, field) or ""


def _in_query(environ: Mapping[str, str], field: str) -> str | None:
    text = environ.get("QUERY_STRING")
    if not text:
        return None
    query = decoded(text.encode("latin-1"))
    return dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape")).get(field)
