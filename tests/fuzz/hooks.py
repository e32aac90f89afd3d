"""Hooks of schemathesis: most requests are about files, chunks, jobs and links that exist.

Schemathesis makes up hashes that fit the schema, and would get a 404 each time. These hooks first make real files, and
put their hashes, chunks, jobs and links into the requests. Some made-up values are left, so that 404s occur too.

This module runs in the virtual environment of schemathesis and can import nothing of the project.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zlib import crc32

import requests
import schemathesis
from schemathesis.core.parameters import ParameterLocation

BASE_URL = os.environ["FUZZ_BASE_URL"]
NODES = 5
FACTOR, FILE_NAME = "replication_factor", "file_name"
CONDITIONS = ("if-match", "if-unmodified-since")
FILES = 6
SIZES = (0, 1, 100, 5000, 300_000, 1_000_000)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
MADE_UP = 8  # One in this many made-up hashes stays as it is.

_session = requests.Session()
_session.trust_env = False
if "FUZZ_KEY" in os.environ:
    _session.auth = (os.environ["FUZZ_KEY"], os.environ["FUZZ_SECRET"])
_made = 0


def _call(method: str, path: str, **arguments: Any) -> Any:
    response = _session.request(method, f"{BASE_URL}{path}", timeout=30, **arguments)
    response.raise_for_status()
    return response.json() if response.content else None


def _upload(size: int = 10) -> str:
    """Store bytes that are not stored yet. Return their hash."""
    global _made
    _made += 1
    data = (f"{_made} ".encode() * (size // 4 + 1))[: max(size, 10) if size else 0]
    return str(_call("PUT", f"/upload/file-{_made}.bin", data=data)["file_hash"])


@cache
def _files() -> list[str]:
    return [_upload(size) for size in SIZES]


@cache
def _chunks() -> list[str]:
    return [chunk["hash"] for file_hash in _files() for chunk in _call("GET", f"/verify/{file_hash}")["chunks"]]


@cache
def _jobs() -> list[str]:
    headers = {"Prefer": "respond-async"}
    return [_call("POST", f"/rebalance/{file_hash}", headers=headers)["job"] for file_hash in _files()]


@cache
def _tokens() -> list[str]:
    """The tokens of share links."""
    made = [_call("POST", f"/files/{file_hash}/links")["url"] for file_hash in _files()]
    return [str(urlsplit(url).path.split("/")[2]) for url in made]


@cache
def _cursor(path: str, sort: str | None) -> str:
    """A cursor of a list, such as that of the files."""
    _tokens()
    order = {} if sort is None else {"sort": sort}
    following = _call("GET", path, params={"limit": 1, **order})["next"]
    return str(parse_qs(urlsplit(following).query)["cursor"][0])


def _is_valid(case: Any, location: ParameterLocation) -> bool:
    """True if this part of a request is meant to fit the schema."""
    part = case.meta.components.get(location) if case.meta else None
    return part is None or part.mode.is_positive


def _number(value: object) -> int:
    """A number that is always the same for the same value, also in another process."""
    return crc32(repr(value).encode(errors="replace"))


def _is_made_up(value: object) -> bool:
    return _number(value) % MADE_UP == 0


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: Any) -> None:
    """Limit factors to the number of nodes. The schema itself names no largest factor, because nodes come and go."""
    stack: list[Any] = [raw_schema]
    for item in stack:  # The list grows during the loop.
        if isinstance(item, dict):
            if item.get("name") == FACTOR and item.get("in") == "query":
                item["schema"]["maximum"] = NODES
            if isinstance(item.get(FACTOR), dict) and item[FACTOR].get("minimum") == 1:
                item[FACTOR]["maximum"] = NODES
            stack += item.values()
        elif isinstance(item, list):
            stack += item


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Put hashes, ids and names that exist into those parts of a request that are meant to fit the schema."""
    if _is_valid(case, ParameterLocation.PATH) and case.path_parameters:
        case.path_parameters = _real_path(case)
    factors = (case.query or {}).get(FACTOR)
    if isinstance(factors, list) and factors[-1:] == [""]:
        # The last of several values counts, and an empty value means the default factor. The value "none" is wrong.
        case.query = {**case.query, FACTOR: [*factors[:-1], "none"]}
    if case.path == "/buckets" and case.query:  # No bucket exists, so the list of buckets has no cursor.
        case.query = {name: value for name, value in case.query.items() if name != "cursor"}
    if _is_valid(case, ParameterLocation.QUERY) and "cursor" in (case.query or {}):
        case.query = {**case.query, "cursor": _cursor(case.path, case.query.get("sort"))}
    if _is_valid(case, ParameterLocation.QUERY) and case.path == "/files" and case.query:
        case.query = _query_of_one_list(case.query)
    if _is_valid(case, ParameterLocation.QUERY) and FILE_NAME in (case.query or {}) and "file_hash" in case.path:
        case.query = _query_with_real_name(case)
    if case.path.startswith("/nodes") and case.path != "/nodes/{node_id}" and case.method.upper() == "POST":
        case = _only_planned(case)
    if case.path == "/keys" and isinstance(case.body, dict) and _is_valid(case, ParameterLocation.BODY):
        # The schema cannot say which users there are, and which characters can be printed.
        case.body = {name: value for name, value in case.body.items() if name in ("scopes", "expires_in")}
    if _is_valid(case, ParameterLocation.HEADER) and case.headers and not _is_made_up(case.headers):
        # With made-up preconditions, nearly all answers would be a 412.
        for name in CONDITIONS:
            case.headers.pop(name, None)
    return case


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Spare the key that schemathesis uses: it has seen the id in answers, and would rotate or revoke its own key."""
    if "FUZZ_KEY" in os.environ and (case.path_parameters or {}).get("key_id") == os.environ["FUZZ_KEY"]:
        case.path_parameters = {"key_id": "OCC"}
    # The phase of sequences sends queries that ``map_case`` has not changed. They must not drain a real node.
    is_act = case.method.upper() == "POST" and case.path.startswith("/nodes/")
    if is_act and str((case.query or {}).get("dry_run")).lower() != "true":
        case.path_parameters = {"node_id": "node_999"}


def _query_of_one_list(query: dict[str, Any]) -> dict[str, Any]:
    """A query for one kind of list. The schema cannot say what the kinds exclude."""
    excluded: tuple[str, ...] = ()
    if "bucket" in query:
        excluded = ("name", "sort", "cursor")  # ``map_case`` has put in a cursor of the list of files.
    elif "delimiter" in query:
        excluded = ("name",)
    query = {name: value for name, value in query.items() if name not in excluded}
    if "bucket" not in query and "prefix" in query:  # Keys may contain control characters, and names may not.
        query["prefix"] = CONTROL.sub("", str(query["prefix"]))
    return query


def _only_planned(case: Any) -> Any:
    """The same request with ``dry_run``: no node is added or drained. A new node gets no made-up address."""
    if _is_valid(case, ParameterLocation.QUERY):
        case.query = {"dry_run": "true"}
    if isinstance(case.body, dict) and _is_valid(case, ParameterLocation.BODY):
        case.body = {"zone": f"zone {_number(case.body)}"}
    return case


def _query_with_real_name(case: Any) -> dict[str, Any]:
    file_hash = (case.path_parameters or {}).get("file_hash")
    if file_hash in _files():
        return {**case.query, FILE_NAME: _call("GET", f"/files/{file_hash}")["file_name"]}
    return {name: value for name, value in case.query.items() if name != FILE_NAME}


def _real_path(case: Any) -> dict[str, Any]:
    """The parts of the path, in most cases with hashes and ids that exist."""
    path = dict(case.path_parameters)
    pick = _number(sorted(path.items()))
    if _is_made_up(tuple(path.values())) or case.meta.phase.name.value == "stateful":
        return path
    if "link_id" in path:
        file_hash = _files()[pick % FILES]
        path["link_id"] = _call("POST", f"/files/{file_hash}/links")["id"]
        if "file_hash" in path:
            path["file_hash"] = file_hash
    elif "file_hash" in path:
        # A deletion gets a file of its own: the other files stay.
        path["file_hash"] = _upload() if case.method.upper() == "DELETE" else _files()[pick % FILES]
    elif "chunk_hash" in path:
        path["chunk_hash"] = _chunks()[pick % len(_chunks())]
    elif "job_id" in path:
        path["job_id"] = _jobs()[pick % FILES]
    elif "node_id" in path:
        path["node_id"] = f"node_{pick % NODES:03d}"
    elif "key_id" in path and "FUZZ_KEY" in os.environ:
        path["key_id"] = _call("POST", "/keys")["id"]
    elif "token" in path:
        path["token"] = _tokens()[pick % FILES]
    return path
