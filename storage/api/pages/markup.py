"""HTML of descriptions and of JSON documents. All text is escaped in this module: clients choose names freely."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson
from django.urls import get_script_prefix
from django.utils.safestring import SafeString

from storage.api.names import FIELD as FILE_NAME
from storage.api.rendering import JsonRenderer
from storage.models.fields import HEX_DIGEST

PARAGRAPHS = re.compile(r"\n\s*\n")
CODE = re.compile(r"`([^`]+)`")
JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ADDRESS = re.compile(r"https?://\S+")
DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # These let a name look like another.
NAMES = (FILE_NAME, "names")


def described(text: str) -> SafeString:
    """The paragraphs of a description.

    All paragraphs but the first are folded. Text between backticks is shown as code.
    """
    escaped = (CODE.sub(r"<code>\1</code>", html.escape(part)) for part in PARAGRAPHS.split(text.strip()))
    first, *others = (f"<p>{part}</p>" for part in escaped)
    more = f"<details><summary>More</summary>{''.join(others)}</details>" if others else ""
    return SafeString(first + more)


def document(data: Any) -> SafeString:
    """The JSON of ``data`` as other clients get it, indented. Hashes, jobs and addresses are links."""
    plain = orjson.loads(JsonRenderer().render(data))
    return SafeString(_value(plain, "", {}, "\n"))


def _value(value: Any, key: str, around: Mapping[str, Any], line: str) -> str:
    """The HTML of one value.

    Args:
        value: any JSON.
        key: the key of the value, or of the list that the value is in.
        around: the object that the key belongs to.
        line: a line break with the indentation of the line on which the value begins.
    """
    deeper = f"{line}  "
    if isinstance(value, dict) and value:
        members = (f"{deeper}{_key(name)}: {_value(child, name, value, deeper)}" for name, child in value.items())
        return f"{{{','.join(members)}{line}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return f"[{','.join(deeper + _value(item, key, around, deeper) for item in value)}{line}]"
    if isinstance(value, list):
        return f"[{', '.join(_scalar(item, key, around) for item in value)}]"
    return _scalar(value, key, around)


def _key(name: str) -> str:
    """The key of a member of an object. A distribution has hashes of chunks as its keys."""
    return _linked(name, f"route/{name}" if HEX_DIGEST.fullmatch(name) else None, "key")


def _scalar(value: Any, key: str, around: Mapping[str, Any]) -> str:
    if not isinstance(value, str):
        return f'<span class="atom">{json.dumps(value)}</span>'
    text = _linked(value, _path(value, key, around), "text")
    if key == "file_hash" and HEX_DIGEST.fullmatch(value):
        return f'{text} <a class="also" href="{get_script_prefix()}download/{value}">download</a>'
    return text


def _path(value: str, key: str, around: Mapping[str, Any]) -> str | None:
    """The address that a string stands for, or None. The address is relative to the API's root or a full URL."""
    if key in NAMES:
        file_hash = around.get("file_hash")
        known = isinstance(file_hash, str) and HEX_DIGEST.fullmatch(file_hash)
        return f"files/{file_hash}?{FILE_NAME}={quote(value, safe='')}" if known else None
    if HEX_DIGEST.fullmatch(value):
        return f"files/{value}" if key == "file_hash" else f"route/{value}"
    if (key == "job" or (key == "id" and "kind" in around)) and JOB_ID.fullmatch(value):
        return f"jobs/{value}"
    return value if ADDRESS.fullmatch(value) else None


def _linked(text: str, path: str | None, kind: str) -> str:
    quoted = DIRECTIONS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
    shown = html.escape(quoted)
    if path is None:
        return f'<span class="{kind}">{shown}</span>'
    address = path if ADDRESS.fullmatch(path) else get_script_prefix() + path
    return f'<a class="{kind}" href="{html.escape(address)}">{shown}</a>'
