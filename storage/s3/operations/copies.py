"""Copy an object, or copy a range of an object into a multipart upload."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_to_bytes

from storage.accounts.principals import Principal
from storage.api.wsgi.transfers import transfer
from storage.models import Bucket, Multipart, OpenObject, Part, Properties, Scope
from storage.s3 import addresses, checksums, conditions, documents, properties
from storage.s3.bodies import Digests
from storage.s3.errors import S3Error
from storage.s3.operations.multipart import algorithm_of, part_number, told_of
from storage.s3.receiving import checksum_fields, store_from
from storage.s3.request import COPY_SOURCE, Reply, Request
from storage.services import intake, objects

_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True)
class Source:
    """The object that is copied."""

    bucket: Bucket
    key: str


def source_of(request: Request) -> Source:
    """The source of a copy.

    Raises:
        S3Error: the header field of the source is malformed, or asks for a version that does not exist.
        NoSuchBucket, Forbidden: the owner may not read the source.
    """
    text, _, query = (request.header(COPY_SOURCE) or "").partition("?")
    try:
        path = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        path = ""
    name, _, key = path.removeprefix("/").partition("/")
    if not name or not key or "\0" in path:
        raise S3Error("InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
    if query and query != "versionId=null":
        raise S3Error("NoSuchVersion", "The specified version does not exist.")
    principal: Principal = request.principal
    principal.require(Scope.READ)
    principal.require_place(name, key)
    return Source(objects.find_bucket(principal.owner, name), key)


def copy_object(request: Request) -> Reply:
    """CopyObject. No bytes move: the copy refers to the contents of the source."""
    addresses.require_key(request.key)
    bucket, source = request.bucket(), source_of(request)
    change = _change(request)
    if change is None and (source.bucket.pk, source.key) == (bucket.pk, request.key):
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the "
            "object's metadata, storage class, website redirect location or encryption attributes.",
        )
    copied = objects.copy(
        source.bucket,
        source.key,
        bucket,
        request.key,
        change=change,
        condition=conditions.of_write(request),
        permit=lambda found: conditions.require_source(request, found.etag, found.modified_at),
    )
    document = documents.root("CopyObjectResult")
    _add_result(document, copied.etag, copied.modified_at, copied.checksums)
    return Reply.of(document)


def _change(request: Request) -> Callable[[Properties], Properties] | None:
    """A function that makes the properties of the copy from those of the source; None if the copy keeps them."""
    given = properties.read(request)
    directive = _directive(request, "x-amz-metadata-directive")
    tagging = _directive(request, "x-amz-tagging-directive")
    new_class = request.header("x-amz-storage-class") is not None
    if directive == "COPY" and tagging == "COPY" and not new_class:
        return None

    def change(found: Properties) -> Properties:
        return replace(
            given if directive == "REPLACE" else found,
            tags=given.tags if tagging == "REPLACE" else found.tags,
            storage_class=given.storage_class if new_class else found.storage_class,
        )

    return change


def _directive(request: Request, name: str) -> str:
    value = (request.header(name) or "COPY").upper()
    if value not in ("COPY", "REPLACE"):
        raise S3Error("InvalidArgument", f"Unknown {name}", details={"ArgumentName": name, "ArgumentValue": value})
    return value


def upload_part_copy(request: Request) -> Reply:
    """UploadPartCopy. No bytes move if the range is a whole part of the source."""
    number = part_number(request)
    bucket, source = request.bucket(), source_of(request)
    multipart = objects.find_multipart(bucket, request.key, request.query["uploadId"])

    def copy(opened: OpenObject) -> Part:
        conditions.require_source(request, opened.etag, opened.modified_at)
        span = _span(request, opened.size)
        if any(part.span == span and algorithm_of(multipart) in part.checksums for part in opened.parts):
            part = objects.copy_part(multipart, number, opened, span)
            if part is not None:
                return part
        with transfer():
            return _copied(request, bucket, multipart, number, opened, span)

    part = objects.read_version(source.bucket, source.key, copy)
    document = documents.root("CopyPartResult")
    _add_result(document, part.etag, part.modified_at, told_of(multipart, part))
    return Reply.of(document)


def _span(request: Request, size: int) -> range:
    """The bytes of the source to copy.

    Raises:
        S3Error: the range is malformed, or is not within the source.
    """
    text = request.header("x-amz-copy-source-range")
    if text is None:
        return range(size)
    match = _RANGE.fullmatch(text)
    if match is None or int(match[1]) > int(match[2]):
        raise S3Error("InvalidArgument", "The x-amz-copy-source-range value must be of the form bytes=first-last")
    if int(match[2]) >= size:
        raise S3Error("InvalidRange", f"Range specified is not valid for source object of size: {size}")
    return range(int(match[1]), int(match[2]) + 1)


def _copied(
    request: Request, bucket: Bucket, multipart: Multipart, number: int, opened: OpenObject, span: range
) -> Part:
    """Read a range of the source, and store it as a part."""
    names = {algorithm_of(multipart), checksums.USUAL}

    def receive(reception: intake.Reception) -> Digests:
        md5 = hashlib.md5(usedforsecurity=False)
        sums: dict[str, Any] = {name: checksums.begin(name) for name in names}
        for data in objects.read(opened, [span]) if span else ():
            for take in _takers(reception, md5, sums):
                take(data)
        return Digests(md5.hexdigest(), {name: checksums.encode(found.digest()) for name, found in sums.items()})

    part_id, _ = store_from(request, bucket, multipart.properties.factor_in(bucket), len(span), receive)
    return objects.put_part(multipart, number, part_id)


def _takers(reception: intake.Reception, md5: Any, sums: dict[str, Any]) -> list[Callable[[bytes], object]]:
    return [reception.write, md5.update, *(found.update for found in sums.values())]


def _add_result(document: documents.Node, etag: str, modified_at: Any, stored: dict[str, str]) -> None:
    documents.add(document, "LastModified", documents.timestamp(modified_at))
    documents.add(document, "ETag", f'"{etag}"')
    for name in checksum_fields(stored):
        algorithm = checksums.of_field(name)
        if algorithm is not None:
            documents.add(document, f"Checksum{algorithm}", stored[algorithm])
    if "type" in stored:
        documents.add(document, "ChecksumType", stored["type"])
