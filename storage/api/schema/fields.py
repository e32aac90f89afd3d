"""Descriptions of query parameters, and of header fields of requests and answers, for the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.models import SORT_KEYS, Activity, Job
from storage.models.fields import HEX_DIGEST
from storage.models.names import MAX_LENGTH, SEPARATOR

Described = tuple[str, Mapping[str, Any]]
"""A description, and the JSON Schema of the value."""

TEXT: Mapping[str, Any] = {"type": "string"}
HASH: Mapping[str, Any] = {"type": "string", "pattern": f"^{HEX_DIGEST.pattern}$"}
_SEGMENT = r"(?!\.{1,2}(/|$))[^/\u0000-\u001f\u007f-\u009f]+"
NAME: Mapping[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_LENGTH,
    "pattern": f"^{_SEGMENT}(/{_SEGMENT})*$",
}
PART_OF_NAME: Mapping[str, Any] = {
    "type": "string",
    "maxLength": MAX_LENGTH,
    "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$",
}
SWITCH: Mapping[str, Any] = {"type": "boolean"}
SECONDS: Mapping[str, Any] = {"type": "integer", "minimum": 0}
DATE: Mapping[str, Any] = {"type": "string", "examples": ["Fri, 27 Nov 2026 11:17:02 GMT"]}

PATH: Mapping[str, Described] = {
    "file_hash": ("the SHA-256 of the file, in lower-case hex", HASH),
    "chunk_hash": ("the SHA-256 of the chunk, in lower-case hex", HASH),
    "file_name": ("the name of the file", NAME),
    "bucket": ("the name of the bucket", TEXT),
    "job_id": ("the id of the job", {"type": "string", "format": "uuid"}),
    "deletion_id": ("the id of the deletion, as `Undo-Location` has it", {"type": "string", "format": "uuid"}),
    "link_id": ("the id of the link", {"type": "string", "format": "uuid"}),
    "node_id": ("the id of the node", TEXT),
    "key_id": ("the id of the key", TEXT),
    "token": ("the secret part of the link's address", TEXT),
}

QUERY: Mapping[str, Described] = {
    "file_name": ("chooses one of several names of the same bytes", NAME),
    "replication_factor": (
        "how many nodes get a copy; at most the number of nodes",
        {"type": "integer", "minimum": 1},
    ),
    "distribution": ("false leaves the distribution out of the answer", {**SWITCH, "default": True}),
    "deep": ("true reads and hashes every copy", {**SWITCH, "default": False}),
    "work": ("uploads, or everything else", {"type": "string", "enum": ["uploads", "maintenance"]}),
    "state": ("jobs in this state", {"type": "string", "enum": Job.State.values}),
    "limit": (
        "how many entries a page has at most",
        {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1000},
    ),
    "cursor": (
        "where the page begins, as `next` of the page before has it",
        {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
    ),
    "key": (
        "the key of the object; at most 1024 bytes of UTF-8",
        {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": r"^[^\u0000]+$"},
    ),
    "bucket": (
        "the objects of this bucket instead of the files",
        {"type": "string", "maxLength": 63, "pattern": r"^[^\u0000]*$"},
    ),
    "dry_run": ("true answers with the plan, and changes nothing", {**SWITCH, "default": False}),
    "action": ("acts of this kind", {"type": "string", "enum": Activity.Action.values}),
    "hours": (
        "how far back",
        {"type": "integer", "minimum": 1, "maximum": 720, "default": 24},
    ),
    "prefix": ("files whose names begin with this, in upper and lower case as given", PART_OF_NAME),
    "delimiter": (
        "lists one folder, which `prefix` names: the folders in it, and its own files",
        {"type": "string", "enum": [SEPARATOR]},
    ),
    "name": ("files whose names contain this, in upper or lower case", PART_OF_NAME),
    "sort": (
        "the order; after a `-` in reverse",
        {"type": "string", "enum": [sign + key for key in SORT_KEYS for sign in ("", "-")], "default": "created_at"},
    ),
}

NAME_OF_UPLOAD: Described = (
    "the name of the new file, instead of that in the form; empty for none",
    {"type": "string", "anyOf": [{"maxLength": 0}, NAME]},
)

REQUEST: Mapping[str, Described] = {
    "Prefer": ("`respond-async` for an answer at once, `return=minimal` for one without the distribution", TEXT),
    "Repr-Digest": ("the SHA-256 of the file (RFC 9530); the service compares it", TEXT),
    "Content-Digest": ("the SHA-256 of the body (RFC 9530); the service compares it", TEXT),
    "Range": ("the bytes that are wanted, up to 100 ranges (RFC 9110)", TEXT),
    "If-Range": ("a tag or a date: `Range` only counts for this version of the file", TEXT),
    "If-Match": ("tags: the request is only for one of these versions", TEXT),
    "If-None-Match": ("tags: the client has these versions already", TEXT),
    "If-Modified-Since": ("a date: the client has this version already", TEXT),
    "If-Unmodified-Since": ("a date: the request is only for a version that is not newer", TEXT),
}
CONDITIONS = ("If-Match", "If-Unmodified-Since")
CONDITIONS_OF_READS = (*CONDITIONS, "If-None-Match", "If-Modified-Since")

ANSWER: Mapping[str, Described] = {
    "Accept-Ranges": ("parts can be asked for by their bytes", {"type": "string", "enum": ["bytes"]}),
    "Cache-Control": ("how caches may keep the answer", TEXT),
    "Content-Disposition": ("the file's name (RFC 6266)", TEXT),
    "Content-Length": ("the size of the body in bytes", {"type": "integer", "minimum": 0}),
    "Content-Range": ("which bytes of how many these are; in a 416, the size of the file", TEXT),
    "ETag": ("the tag of this version", {"type": "string", "pattern": '^"[0-9a-f]+(-[0-9]+)?"$'}),
    "Last-Modified": ("when this version was made", DATE),
    "Location": ("the address of the file, or of the job that does the work", {"type": "string"}),
    "Preference-Applied": ("the preferences of `Prefer` that were granted", TEXT),
    "RateLimit-Limit": ("how many requests are allowed", SECONDS),
    "RateLimit-Remaining": ("how many requests are left", SECONDS),
    "RateLimit-Reset": ("seconds until a request is allowed again", SECONDS),
    "Repr-Digest": (
        "the SHA-256 of the whole file (RFC 9530)",
        {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
    ),
    "Retry-After": ("seconds after which to ask again", SECONDS),
    "Undo-Location": ("a POST to this address undoes the deletion", {"type": "string"}),
    "WWW-Authenticate": ("the ways to show a key", TEXT),
    "X-Content-Type-Options": ("browsers must not guess the type", {"type": "string", "enum": ["nosniff"]}),
}
