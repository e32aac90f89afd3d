"""Changes to the whole schema after drf-spectacular has made it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from storage.api import errors

BYTES = "application/octet-stream"


def add_example_of_problem(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add an example to the component of problem documents, which every operation refers to."""
    example = errors.problem(
        400, "invalid_request", "some fields are not valid", {"replication_factor": ["The cluster has 5 nodes."]}
    )
    result["components"]["schemas"]["Problem"]["examples"] = [example]
    return result


def drop_marks(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Drop the marks of enumerations: only a hook of drf-spectacular that is not used here reads them."""
    stack: list[Any] = [result]
    for item in stack:  # The list grows during the loop.
        if isinstance(item, dict):
            item.pop("x-spec-enum-id", None)
        stack += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return result


def allow_overlap(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Say ``anyOf`` where an answer has one of several kinds: an empty page fits the kind of files and that of objects.

    drf-spectacular itself says ``oneOf``, which an answer that fits two kinds would violate.
    """
    for component in result["components"]["schemas"].values():
        if "oneOf" in component:
            component["anyOf"] = component.pop("oneOf")
    return result


def add_heads(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add HEAD where the bytes of a file can be fetched: clients ask there for size and digest. Ranges do not apply to
    HEAD.

    HEAD works wherever GET works, but at other addresses it is of no use.
    """
    for item in result["paths"].values():
        if BYTES not in item.get("get", {}).get("responses", {}).get("200", {}).get("content", {}):
            continue
        head = item["head"] = deepcopy(item["get"])
        head["operationId"] = f"{head['operationId']}_head"
        head["summary"] = "Ask for the header fields of a download"
        head["parameters"] = [one for one in head["parameters"] if one["name"] not in ("Range", "If-Range")]
        for status in ("206", "416"):
            del head["responses"][status]
        for reply in head["responses"].values():
            reply.pop("content", None)
    return result
