"""Operations on one object: read it, write it, delete it."""

from __future__ import annotations

from contextlib import suppress

from storage.api.downloads.body import Body
from storage.api.http import preconditions, ranges
from storage.api.wsgi.transfers import transfer
from storage.exceptions import NoSuchObject
from storage.models import Object, OpenObject, Properties
from storage.s3 import addresses, checksums, conditions, properties
from storage.s3.errors import S3Error
from storage.s3.receiving import checksum_fields, store
from storage.s3.request import Reply, Request
from storage.services import objects

# Parameters of a read that replace header fields of its answer.
OVERRIDES = {
    "response-cache-control": "Cache-Control",
    "response-content-disposition": "Content-Disposition",
    "response-content-encoding": "Content-Encoding",
    "response-content-language": "Content-Language",
    "response-content-type": "Content-Type",
    "response-expires": "Expires",
}


def require_version(request: Request) -> None:
    """Refuse a version that does not exist: each object has one version, whose id is ``null``.

    Raises:
        S3Error: the request asks for another version.
    """
    version = request.query.get("versionId", "null")
    if version != "null":
        raise S3Error("NoSuchVersion", "The specified version does not exist.", details={"VersionId": version})


def get_object(request: Request) -> Reply:
    """GetObject, or HeadObject for a HEAD."""
    require_version(request)
    return objects.read_version(request.bucket(), request.key, lambda opened: _answer(request, opened))


def _answer(request: Request, opened: OpenObject) -> Reply:
    headers = _headers(request, opened)
    if conditions.is_known(request, opened.etag, opened.modified_at):
        del headers["Content-Length"]
        return Reply(304, headers)
    wanted = _wanted(request, opened, headers)
    if (request.header("x-amz-checksum-mode") or "").upper() == "ENABLED":
        headers |= checksum_fields(_checksums(opened, wanted))
    if wanted is not None:
        headers["Content-Range"] = ranges.content_range(wanted, opened.size)
        headers["Content-Length"] = str(len(wanted))
    status = 200 if wanted is None else 206
    if request.environ["REQUEST_METHOD"] == "HEAD":
        return Reply(status, headers)
    needed = None if wanted is None else [wanted] if wanted else []
    return Reply(status, headers, Body(lambda: objects.read(opened, needed)))


def _checksums(opened: OpenObject, wanted: range | None) -> dict[str, str]:
    """The checksums of the bytes that are sent, if these are the whole object or exactly one part; otherwise none."""
    if wanted is None or len(wanted) == opened.size:
        return opened.checksums
    for part in opened.parts:
        if part.span == wanted:
            return {
                name: opened.checksums[name] if name == "type" else part.checksums[name]
                for name in opened.checksums
                if name == "type" or name in part.checksums
            }
    return {}


def _headers(request: Request, opened: OpenObject) -> dict[str, str]:
    headers = {
        **properties.fields(opened.properties),
        "Accept-Ranges": "bytes",
        "Content-Length": str(opened.size),
        "ETag": f'"{opened.etag}"',
        "Last-Modified": preconditions.http_date(opened.modified_at),
    }
    for name, field in OVERRIDES.items():
        if name in request.query:
            headers[field] = properties.wire(request.query[name])
    return headers


def _wanted(request: Request, opened: OpenObject, headers: dict[str, str]) -> range | None:
    """The range of bytes to send; None for the whole object.

    Raises:
        S3Error: the object has no such byte or part.
    """
    if (number := request.query.get("partNumber")) is not None:
        return _part(number, opened, headers)
    field = request.header("range")
    if field is None or not conditions.range_applies(request, opened.etag, opened.modified_at):
        return None
    # For an empty object, ``requested`` would ignore the field ``Range``; S3 answers 416.
    found = ranges.requested(field, opened.size or 1)
    if found is None or len(found) > 1:
        return None
    if not found or not opened.size:
        raise S3Error(
            "InvalidRange",
            "The requested range is not satisfiable",
            details={"RangeRequested": field, "ActualObjectSize": str(opened.size)},
            headers={"Content-Range": ranges.content_range(None, opened.size)},
        )
    return found[0]


def _part(number: str, opened: OpenObject, headers: dict[str, str]) -> range:
    if not (number.isascii() and number.isdigit() and len(number) < 6 and int(number) > 0):
        raise S3Error("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
    is_multipart = "-" in opened.etag
    if not is_multipart and int(number) == 1:
        return range(opened.size)
    part = next((part for part in opened.parts if part.number == int(number)), None)
    if part is None or not is_multipart:
        raise S3Error("InvalidPart", "The object has no such part")
    headers["x-amz-mp-parts-count"] = str(len(opened.parts))
    return part.span


def put_object(request: Request) -> Reply:
    """PutObject."""
    addresses.require_key(request.key)
    return Reply(200, headers_of(store_object(request, properties.read(request))))


def store_object(request: Request, wanted: Properties) -> Object:
    """Store the body of a request as the object that the request names.

    Args:
        request: the request.
        wanted: what the client says about the object.

    Raises:
        S3Error, StorageError: the body or the object is refused.
    """
    condition, bucket = conditions.of_write(request), request.bucket()
    with transfer():
        part_id, digests = store(request, bucket, wanted.factor_in(bucket))
        kept = {digests.told: digests.checksums[digests.told], "type": checksums.FULL}
        return objects.put(bucket, request.key, part_id, wanted, checksums=kept, condition=condition)


def headers_of(stored: Object) -> dict[str, str]:
    """The header fields of an answer about an object that was just stored."""
    return {"ETag": f'"{stored.etag}"', **checksum_fields(stored.checksums)}


def delete_object(request: Request) -> Reply:
    """DeleteObject, which succeeds even if there is no such object."""
    require_version(request)
    addresses.require_key(request.key)
    for name in ("x-amz-if-match-last-modified-time", "x-amz-if-match-size"):
        if request.header(name) is not None:
            raise S3Error("NotImplemented", f"{name} is not implemented")
    condition, bucket = conditions.of_write(request), request.bucket()
    with suppress(NoSuchObject):
        objects.delete(bucket, request.key, condition=condition)
    return Reply(204)
