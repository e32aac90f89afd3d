"""Objects that arrive in the forms of browsers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from storage.models import Object
from storage.s3 import documents, properties
from storage.s3.errors import S3Error
from storage.s3.operations.objects import headers_of, store_object
from storage.s3.request import Reply, Request
from storage.s3.signatures import canonical

HEADER_FIELDS = frozenset((*properties.KEPT, "content-type"))  # Fields of a form that PutObject has as header fields.
STATUSES = {"200": 200, "201": 201}  # ``success_action_status`` → status. The status is 204 for every other text.

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+", re.ASCII)
_WEB_ADDRESS = re.compile(r"https?://[!-~]{1,2048}", re.ASCII | re.IGNORECASE)  # A proxy may refuse longer fields.


def post_object(request: Request) -> Reply:
    """PostObject."""
    assert request.form is not None
    fields = request.form.fields
    request.environ = _with_header_fields(request.environ, fields)
    wanted = properties.read(request)
    if "tagging" in fields:
        wanted = replace(wanted, tags=properties.tags_of(documents.parse(fields["tagging"].encode(), "Tagging")))
    return _answer(request, fields, store_object(request, wanted))


def _with_header_fields(environ: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    """The WSGI environment of a request for PutObject that says the same as a form.

    The header fields of the request itself are left out: a form's policy covers the form's fields only, so the policy
    has not allowed the header fields.
    """
    found = {name: value for name, value in environ.items() if not name.startswith("HTTP_") or name == "HTTP_HOST"}
    found.pop("CONTENT_TYPE", None)
    for name, value in fields.items():
        field = "x-amz-acl" if name == "acl" else name
        if field in HEADER_FIELDS or field.startswith("x-amz-"):
            if not _HEADER_NAME.fullmatch(field):
                raise S3Error("InvalidArgument", "a field has a name that no header field can have")
            found[canonical.variable(field)] = properties.wire(value)
    return found


def _answer(request: Request, fields: dict[str, str], stored: Object) -> Reply:
    target = fields.get("success_action_redirect") or fields.get("redirect") or ""
    named = {"bucket": request.address.bucket, "key": request.key, "etag": f'"{stored.etag}"'}
    if (location := _redirected(target, named)) is not None:
        return Reply(303, {**headers_of(stored), "Location": location})
    scheme, host = request.environ["wsgi.url_scheme"], request.environ.get("HTTP_HOST", "")
    location = f"{scheme}://{host}{request.address.path.rstrip('/')}/{quote(request.key)}"
    headers = {**headers_of(stored), "Location": location}
    status = STATUSES.get(fields.get("success_action_status", ""), 204)
    if status != 201:
        return Reply(status, headers)
    document = documents.Node("PostResponse")
    documents.add(document, "Location", location)
    for name, text in named.items():
        documents.add(document, "ETag" if name == "etag" else name.title(), text)
    return Reply(status, {**headers, "Content-Type": "application/xml"}, documents.render(document))


def _redirected(target: str, named: dict[str, str]) -> str | None:
    """The address of a page with a query that names an object; None if the target is no address of a page."""
    if not _WEB_ADDRESS.fullmatch(target):
        return None
    try:
        parts = urlsplit(target)
    except ValueError:
        return None
    query = "&".join(part for part in (parts.query, urlencode(named)) if part)
    return urlunsplit(parts._replace(query=query)) if parts.hostname else None
