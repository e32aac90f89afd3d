"""Pure functions that read ``Content-Disposition`` in forms (RFC 7578) and write it for downloads (RFC 6266)."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, unquote

LONGEST = 255  # Most file systems take no name with more bytes.
ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187 leaves these characters, letters and digits as they are.

_PARAMETER = re.compile(
    r"""[ \t]*;[ \t]*(?P<key>[!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*
    (?:"(?P<escaped>(?:[^"\\]|\\["\\])*)" | "(?P<plain>[^"]*)" | (?P<token>[^\s";]*))
    (?=[ \t]*(?:;|\Z))""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r'\\(["\\])')
_PERCENT = re.compile("%(22|0D|0A)")
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE | re.DOTALL)

_PLAIN = re.compile(r"(?:[ !#$&-.0-\[\]-~]|%(?![0-9A-Fa-f]{2}))*")
_UNSAFE = re.compile(r"[^ !#$&-.0-\[\]-~]+")


def form_names(value: str) -> tuple[str | None, str | None]:
    """The field name and the file name of a form's part; None for a name that the part does not have.

    Browsers, and curl since 7.81, write a quotation mark as ``%22`` and a backslash as it is (WHATWG, HTML §4.10.21.8).
    Older clients put a backslash before either character. A value in which every quotation mark and every
    backslash is escaped like this is taken for a value of an older client.

    Args:
        value: the value of the field ``Content-Disposition``.

    Raises:
        ValueError: the field is malformed.
    """
    start = value.find(";")
    end = len(value.rstrip("; \t"))
    found: dict[str, str] = {}
    while 0 <= start < end:
        match = _PARAMETER.match(value, start)
        if match is None:
            raise ValueError("a Content-Disposition cannot be read")
        key = match["key"].lower()
        if key in found:
            raise ValueError("a Content-Disposition says something twice")
        found[key] = _extended(_unquoted(match)) if key.endswith("*") else _unescaped(match)
        start = match.end()
    return found.get("name"), found.get("filename*", found.get("filename"))


def _unquoted(match: re.Match[str]) -> str:
    return next(text for text in (match["escaped"], match["plain"], match["token"]) if text is not None)


def _unescaped(match: re.Match[str]) -> str:
    text = _unquoted(match)
    if match["escaped"] and "\\" in text:
        text = _ESCAPE.sub(r"\1", text)
        if '"' in text:  # A client that escapes a quotation mark with a backslash does not write it as %22.
            return text
    return _PERCENT.sub(lambda percent: chr(int(percent[1], 16)), text)


def _extended(text: str) -> str:
    """The value of a parameter with an asterisk (RFC 8187 §3.2)."""
    match = _EXTENDED.fullmatch(text)
    if match is None:
        raise ValueError("a Content-Disposition has an unknown charset")
    return unquote(match[2], match[1], errors="surrogateescape")


def attachment(name: str, otherwise: str) -> str:
    """The value that makes a client save a download under a name.

    The parameter ``filename`` is ASCII, for clients that know no other parameter. This value has nothing that some
    clients misread: no backslash, no quotation mark, no percent-encoding (RFC 6266, appendix D). If the name cannot be
    written like this, the whole name is also given in ``filename*``, which other clients prefer.

    Args:
        name: a valid file name.
        otherwise: ASCII text. If nothing of the name can be written in ASCII, this text replaces all but the extension.
    """
    if _PLAIN.fullmatch(name):
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{_ascii(name, otherwise)}\"; filename*=UTF-8''{quote(name, safe=ATTR_CHAR)}"


def _ascii(name: str, otherwise: str) -> str:
    letters = (letter for letter in unicodedata.normalize("NFD", name) if not unicodedata.combining(letter))
    stem, dot, extension = _UNSAFE.sub("_", "".join(letters)).rpartition(".")
    if not dot:
        stem, extension = extension, ""
    if not any(letter.isalnum() for letter in stem):
        stem = otherwise
    has_extension = any(letter.isalnum() for letter in extension)
    return f"{stem}.{extension}"[:LONGEST] if has_extension else stem
