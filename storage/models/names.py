"""Names of files: relative paths, whose segments are separated by slashes (ADR 32). All functions are pure."""

from __future__ import annotations

import re

MAX_LENGTH = 255  # The most characters of a name with its folders. Such a name takes at most 1020 bytes in UTF-8.
SEPARATOR = "/"
FIRST = " "  # No segment begins with a character before this one.
AFTER_SEPARATOR = chr(ord(SEPARATOR) + 1)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def fault_of(text: str) -> str | None:
    """The reason why a text cannot be the name of a file; None if it can be one."""
    if not text:
        return "A file name has at least one character."
    if reason := fault_of_part(text):
        return reason
    segments = text.split(SEPARATOR)
    if "" in segments:
        return "A file name has a name between two slashes, and no slash at its beginning or end."
    if "." in segments or ".." in segments:
        return "The names . and .. mean folders."
    return None


def fault_of_part(text: str) -> str | None:
    """The reason why no name of a file can contain a text; None if a name may contain it."""
    if len(text) > MAX_LENGTH:
        return f"A file name has at most {MAX_LENGTH} characters; this one has {len(text)}."
    if _SURROGATE.search(text):
        return "A file name is text in UTF-8; this one has bytes or surrogates that are no characters."
    if control := _CONTROL.search(text):
        return f"A file name has no control characters; this one has U+{ord(control[0]):04X}."
    return None


def last_segment(name: str) -> str:
    """The name without its folders: clients save a download under it."""
    return name.rpartition(SEPARATOR)[2]


def folder_of(text: str) -> str:
    """The folder that a name, or the beginning of a name, is in: all up to its last slash, which is included."""
    return text[: len(text) - len(last_segment(text))]


def end_of_prefix(prefix: str) -> str | None:
    """The first text, by code points, after all texts that begin with the prefix; None if no text comes after them."""
    for position in reversed(range(len(prefix))):
        code_point = ord(prefix[position])
        if code_point < 0x10FFFF:
            following = 0xE000 if code_point == 0xD7FF else code_point + 1  # Surrogates are not characters.
            return prefix[:position] + chr(following)
    return None
