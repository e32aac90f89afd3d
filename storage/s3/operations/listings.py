"""Listings of objects."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from storage.models import Bucket
from storage.s3 import documents
from storage.s3.errors import S3Error
from storage.s3.request import Reply, Request
from storage.services import objects

MOST = 1000
Encode = Callable[[str], str]


def list_objects(request: Request) -> Reply:
    """ListObjects, the first version."""
    bucket = request.bucket()
    marker = request.query.get("marker", "")
    document, encoder, listing, delimiter = _listed(request, bucket, "ListBucketResult", after=marker)
    # Clients of ListObjects version 1 do not decode the prefix of an encoded listing.
    prefix = document.find("Prefix")
    assert prefix is not None
    prefix.text = request.query.get("prefix", "")
    documents.add(document, "Marker", encoder.encode(marker))
    if listing.last is not None and delimiter:
        documents.add(document, "NextMarker", encoder.encode(listing.last))
    _add_entries(request, document, listing, encoder.encode, has_owner=True)
    return Reply.of(document)


def list_objects_v2(request: Request) -> Reply:
    """ListObjectsV2."""
    if request.query["list-type"] != "2":
        raise S3Error("InvalidArgument", "list-type is 2")
    bucket = request.bucket()
    start, token = request.query.get("start-after", ""), request.query.get("continuation-token")
    after = _decoded(token) if token else start
    document, encoder, listing, _ = _listed(request, bucket, "ListBucketResult", after=after)
    documents.add(document, "KeyCount", len(listing.objects) + len(listing.prefixes))
    if start:
        documents.add(document, "StartAfter", encoder.encode(start))
    if token is not None:
        documents.add(document, "ContinuationToken", token)
    if listing.last is not None:
        documents.add(document, "NextContinuationToken", _encoded(listing.last))
    has_owner = request.query.get("fetch-owner", "").lower() == "true"
    _add_entries(request, document, listing, encoder.encode, has_owner=has_owner)
    return Reply.of(document)


def list_versions(request: Request) -> Reply:
    """ListObjectVersions: each object has one version, whose id is ``null``."""
    bucket = request.bucket()
    marker = request.query.get("key-marker", "")
    document, encoder, listing, _ = _listed(request, bucket, "ListVersionsResult", after=marker)
    documents.add(document, "KeyMarker", encoder.encode(marker))
    documents.add(document, "VersionIdMarker", request.query.get("version-id-marker", ""))
    if listing.last is not None:
        documents.add(document, "NextKeyMarker", encoder.encode(listing.last))
        documents.add(document, "NextVersionIdMarker", "null")
    _add_entries(request, document, listing, encoder.encode, has_owner=True, name="Version")
    return Reply.of(document)


def _listed(
    request: Request, bucket: Bucket, root: str, *, after: str
) -> tuple[documents.Node, type[documents.Encoder], objects.Listing, str]:
    """A document with the elements that all three answers have; the encoder of the keys, the listing, the delimiter."""
    encoder = documents.encoder(request.query.get("encoding-type"))
    prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
    limit = request.number("max-keys", MOST, 0, MOST)
    request.principal.require_place(bucket.name, prefix)
    listing = objects.list_objects(bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
    document = documents.root(root)
    documents.add(document, "Name", bucket.name)
    documents.add(document, "Prefix", encoder.encode(prefix))
    if delimiter:
        documents.add(document, "Delimiter", encoder.encode(delimiter))
    documents.add(document, "MaxKeys", limit)
    if encoder.name is not None:
        documents.add(document, "EncodingType", encoder.name)
    documents.add(document, "IsTruncated", documents.boolean(listing.last is not None))
    return document, encoder, listing, delimiter


def _add_entries(
    request: Request,
    document: documents.Node,
    listing: objects.Listing,
    encode: Encode,
    *,
    has_owner: bool,
    name: str = "Contents",
) -> None:
    owner = request.principal.owner
    for listed in listing.objects:
        entry = documents.add(document, name)
        documents.add(entry, "Key", encode(listed.key))
        if name == "Version":
            documents.add(entry, "VersionId", "null")
            documents.add(entry, "IsLatest", "true")
        documents.add(entry, "LastModified", documents.timestamp(listed.modified_at))
        documents.add(entry, "ETag", f'"{listed.etag}"')
        for algorithm in listed.checksums:
            documents.add(entry, *_checksum(algorithm, listed.checksums))
        documents.add(entry, "Size", listed.size)
        if has_owner:
            documents.owner(entry, "Owner", str(owner.pk), owner.username)
        documents.add(entry, "StorageClass", listed.storage_class)
    for prefix in listing.prefixes:
        documents.add(documents.add(document, "CommonPrefixes"), "Prefix", encode(prefix))


def _checksum(algorithm: str, checksums: dict[str, str]) -> tuple[str, str]:
    if algorithm == "type":
        return "ChecksumType", checksums["type"]
    return "ChecksumAlgorithm", algorithm


def _encoded(last: str) -> str:
    return base64.urlsafe_b64encode(last.encode()).decode()


def _decoded(token: str) -> str:
    try:
        text = base64.urlsafe_b64decode(token.encode("ascii")).decode()
    except (binascii.Error, ValueError):
        text = ""
    if not text or "\0" in text:
        raise S3Error("InvalidArgument", "The continuation token provided is incorrect")
    return text
