"""Conditional requests: the fields of RFC 9110 §13 as S3's clients write them, with or without quotation marks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from storage.api.http import preconditions
from storage.s3.errors import S3Error
from storage.s3.request import Request
from storage.services.objects import Condition

FIELDS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
SOURCE = "x-amz-copy-source-"


def is_known(request: Request, etag: str, modified: datetime) -> bool:
    """Evaluate the conditions that a client sends with a read.

    Args:
        request: the request.
        etag: the ETag of the object, without quotation marks.
        modified: the time of the object's last modification.

    Returns:
        True if the client has this version of the object already: the answer is 304.

    Raises:
        S3Error: a condition is not fulfilled.
    """
    return _check(_environ(request, "GET"), etag, modified)


def range_applies(request: Request, etag: str, modified: datetime) -> bool:
    """True if ``Range`` is to be obeyed: ``If-Range`` is absent, or names this version of the object."""
    field = request.header("if-range")
    return preconditions.range_applies(
        {} if field is None else {"HTTP_IF_RANGE": _quoted(field)}, f'"{etag}"', modified
    )


def require_source(request: Request, etag: str, modified: datetime) -> None:
    """Evaluate the conditions that a client sends about the source of a copy. The arguments are those of ``is_known``.

    Raises:
        S3Error: a condition is not fulfilled.
    """
    if _check(_environ(request, "GET", SOURCE), etag, modified):
        raise _failed("x-amz-copy-source-If-None-Match or If-Modified-Since")


def of_write(request: Request) -> Condition:
    """The conditions of a write, checked when the object is recorded. Each header field has one ETag, or ``*``."""
    unlike, etag = (_unquoted(request.header(name)) for name in ("if-none-match", "if-match"))
    is_absent = unlike == "*"
    return Condition(absent=is_absent, etag=etag, unlike=None if is_absent else unlike)


def _unquoted(field: str | None) -> str | None:
    return None if field is None else field.strip().strip('"')


def _check(environ: Mapping[str, str], etag: str, modified: datetime) -> bool:
    try:
        return preconditions.check(environ, f'"{etag}"', modified)
    except preconditions.PreconditionFailed as error:
        raise _failed(str(error.detail).partition(" ")[0]) from None


def _failed(condition: str) -> S3Error:
    return S3Error(
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
        details={"Condition": condition},
    )


def _environ(request: Request, method: str, prefix: str = "") -> dict[str, str]:
    found = {"REQUEST_METHOD": method}
    for name in FIELDS:
        if (value := request.header(prefix + name)) is not None:
            variable = f"HTTP_{name.upper().replace('-', '_')}"
            found[variable] = _quoted(value) if name.endswith("-match") else value
    return found


def _quoted(field: str) -> str:
    """The field with quotation marks around each entity tag. Some clients leave the quotation marks out."""
    tags = (part.strip() for part in field.split(","))
    return ", ".join(tag if tag == "*" or '"' in tag else f'"{tag}"' for tag in tags if tag)
