"""GetObjectAttributes: what is known about an object, as a document."""

from __future__ import annotations

from storage.api.http import preconditions
from storage.models import OpenObject
from storage.s3 import documents
from storage.s3.errors import S3Error
from storage.s3.operations.objects import require_version
from storage.s3.request import Reply, Request
from storage.services import objects

KNOWN = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")
MOST = 1000


def get(request: Request) -> Reply:
    """GetObjectAttributes."""
    require_version(request)
    wanted = [name.strip() for name in (request.header("x-amz-object-attributes") or "").split(",") if name.strip()]
    if not wanted or not set(wanted) <= set(KNOWN):
        raise S3Error("InvalidArgument", "Invalid attribute name specified.")
    opened = objects.open_object(request.bucket(), request.key)
    document = documents.root("GetObjectAttributesResponse")
    if "ETag" in wanted:
        documents.add(document, "ETag", opened.etag)
    if "Checksum" in wanted and opened.checksums:
        entry = documents.add(document, "Checksum")
        for name, value in opened.checksums.items():
            documents.add(entry, "ChecksumType" if name == "type" else f"Checksum{name}", value)
    if "ObjectParts" in wanted and "-" in opened.etag:
        _add_parts(request, document, opened)
    if "StorageClass" in wanted:
        documents.add(document, "StorageClass", opened.storage_class)
    if "ObjectSize" in wanted:
        documents.add(document, "ObjectSize", opened.size)
    return Reply.of(document, {"Last-Modified": preconditions.http_date(opened.modified_at)})


def _add_parts(request: Request, document: documents.Node, opened: OpenObject) -> None:
    after = _number(request, "x-amz-part-number-marker", 0)
    limit = min(MOST, _number(request, "x-amz-max-parts", MOST))
    following = [part for part in opened.parts if part.number > after]
    entry = documents.add(document, "ObjectParts")
    documents.add(entry, "PartsCount", len(opened.parts))
    documents.add(entry, "PartNumberMarker", after)
    shown = following[:limit]
    documents.add(entry, "NextPartNumberMarker", shown[-1].number if shown else after)
    documents.add(entry, "MaxParts", limit)
    documents.add(entry, "IsTruncated", documents.boolean(len(following) > limit))
    for part in shown:
        found = documents.add(entry, "Part")
        documents.add(found, "PartNumber", part.number)
        documents.add(found, "Size", part.size)
        for name, value in part.checksums.items():
            if name in opened.checksums:
                documents.add(found, f"Checksum{name}", value)


def _number(request: Request, name: str, default: int) -> int:
    text = request.header(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise S3Error("InvalidArgument", f"{name} is a whole number")
    return int(text)
