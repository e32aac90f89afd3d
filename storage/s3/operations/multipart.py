"""Multipart uploads."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from storage.api.wsgi.transfers import transfer
from storage.models import Multipart, Part
from storage.s3 import addresses, bodies, checksums, conditions, documents, properties
from storage.s3.errors import S3Error
from storage.s3.receiving import checksum_fields, store
from storage.s3.request import Reply, Request
from storage.services import objects

MOST_PARTS = 10_000
MOST = 1000


def part_number(request: Request) -> int:
    """The number of the part that a request is about.

    Raises:
        S3Error: the number is missing or out of range.
    """
    text = request.query.get("partNumber", "")
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MOST_PARTS):
        raise S3Error(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive",
            details={"ArgumentName": "partNumber", "ArgumentValue": text},
        )
    return int(text)


def algorithm_of(multipart: Multipart) -> str:
    """The algorithm of the checksum that each part of an upload has."""
    return str(multipart.checksums["algorithm"])


def told_of(multipart: Multipart, part: Part) -> dict[str, str]:
    """The checksum that the answer about a part has."""
    name = algorithm_of(multipart)
    return {name: part.checksums[name]}


def create(request: Request) -> Reply:
    """CreateMultipartUpload."""
    addresses.require_key(request.key)
    wanted, bucket = properties.read(request), request.bucket()
    name = checksums.algorithm(request.header("x-amz-checksum-algorithm") or checksums.USUAL)
    kind = checksums.kind_of(name, request.header("x-amz-checksum-type"))
    multipart = objects.begin_multipart(bucket, request.key, wanted, checksums={"algorithm": name, "type": kind})
    document = documents.root("InitiateMultipartUploadResult")
    documents.add(document, "Bucket", bucket.name)
    documents.add(document, "Key", request.key)
    documents.add(document, "UploadId", multipart.upload_id)
    return Reply.of(document, {"x-amz-checksum-algorithm": name, "x-amz-checksum-type": kind})


def upload_part(request: Request) -> Reply:
    """UploadPart."""
    number, bucket = part_number(request), request.bucket()
    multipart = objects.find_multipart(bucket, request.key, request.query["uploadId"])
    with transfer():
        part_id, _ = store(
            request, bucket, multipart.properties.factor_in(bucket), algorithms=[algorithm_of(multipart)]
        )
        part = objects.put_part(multipart, number, part_id)
    return Reply(200, {"ETag": f'"{part.etag}"', **checksum_fields(told_of(multipart, part))})


def complete(request: Request) -> Reply:
    """CompleteMultipartUpload. The parts are not read again, so the client waits only briefly."""
    condition, bucket = conditions.of_write(request), request.bucket()
    listed = bodies.document(_without_checksums(request), "CompleteMultipartUpload").findall("Part")
    chosen = [_chosen(part) for part in listed]
    expected = [_checksum_in(part) for part in listed]
    if not chosen:
        raise S3Error("MalformedXML", "the document names no part")
    done = objects.complete(
        bucket,
        request.key,
        request.query["uploadId"],
        chosen,
        condition=condition,
        seal=lambda multipart, parts: _seal(request, multipart, parts, expected),
    )
    document = documents.root("CompleteMultipartUploadResult")
    scheme, host = request.environ["wsgi.url_scheme"], request.environ.get("HTTP_HOST", "")
    documents.add(document, "Location", f"{scheme}://{host}{request.address.path}")
    documents.add(document, "Bucket", bucket.name)
    documents.add(document, "Key", request.key)
    documents.add(document, "ETag", f'"{done.etag}"')
    for name, value in done.checksums.items():
        if name in checksums.SIZES:
            documents.add(document, f"Checksum{name}", value)
    if "type" in done.checksums:
        documents.add(document, "ChecksumType", done.checksums["type"])
    return Reply.of(document)


def _without_checksums(request: Request) -> Request:
    """The request without its checksum fields, which are about the object and not about the document in the body."""
    fields = {f"HTTP_{checksums.field_of(name).upper().replace('-', '_')}" for name in checksums.SIZES}
    environ = {name: value for name, value in request.environ.items() if name not in fields}
    found = Request(environ, request.address, request.query, request.operation, request.payload, request.chain)
    found.principal = request.principal
    return found


def _chosen(part: documents.Node) -> tuple[int, str]:
    number = documents.needed(part, "PartNumber")
    if not (number.isascii() and number.isdigit() and len(number) < 6 and 1 <= int(number) <= MOST_PARTS):
        raise S3Error("InvalidArgument", f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive")
    return int(number), documents.needed(part, "ETag").strip().strip('"')


def _checksum_in(part: documents.Node) -> dict[str, str]:
    return {name: text for name in checksums.SIZES if (text := documents.text_of(part, f"Checksum{name}"))}


def _seal(
    request: Request, multipart: Multipart, parts: Sequence[Part], expected: Sequence[dict[str, str]]
) -> dict[str, str]:
    """The checksums of the whole object.

    Raises:
        S3Error: a part or the object has another checksum or size than the client says.
    """
    name, kind = algorithm_of(multipart), multipart.checksums["type"]
    for part, sums in zip(parts, expected, strict=True):
        for algorithm, value in sums.items():
            if part.checksums.get(algorithm) != value:
                raise S3Error("InvalidPart", f"part {part.number} has another {algorithm} checksum")
    wanted_kind = request.header("x-amz-checksum-type")
    if wanted_kind is not None and wanted_kind.upper() != kind:
        raise S3Error("InvalidRequest", f"the checksum type of this upload is {kind}")
    size = request.header("x-amz-mp-object-size")
    if size is not None and size != str(sum(part.size for part in parts)):
        raise S3Error("InvalidRequest", "the object does not have the size of x-amz-mp-object-size")
    values = [base64.b64decode(part.checksums[name]) for part in parts]
    if kind == checksums.COMPOSITE:
        value = checksums.composite(name, values)
    else:
        value = checksums.joined(name, [(sum_, part.size) for sum_, part in zip(values, parts, strict=True)])
    given = request.header(checksums.field_of(name))
    if given is not None and given.partition("-")[0] != value.partition("-")[0]:
        raise S3Error("BadDigest", f"The {name} you specified did not match the calculated checksum.")
    return {name: value, "type": kind}


def abort(request: Request) -> Reply:
    """AbortMultipartUpload."""
    objects.abort(request.bucket(), request.key, request.query["uploadId"])
    return Reply(204)


def list_parts(request: Request) -> Reply:
    """ListParts."""
    bucket = request.bucket()
    multipart = objects.find_multipart(bucket, request.key, request.query["uploadId"])
    after = request.number("part-number-marker", 0, 0, MOST_PARTS)
    limit = request.number("max-parts", MOST, 0, MOST)
    parts, is_truncated = objects.list_parts(multipart, after=after, limit=limit)
    encoder = documents.encoder(request.query.get("encoding-type"))
    document = documents.root("ListPartsResult")
    documents.add(document, "Bucket", bucket.name)
    documents.add(document, "Key", encoder.encode(request.key))
    documents.add(document, "UploadId", multipart.upload_id)
    _add_owners(request, document)
    documents.add(document, "StorageClass", multipart.storage_class)
    documents.add(document, "PartNumberMarker", after)
    if parts:
        documents.add(document, "NextPartNumberMarker", parts[-1].number)
    documents.add(document, "MaxParts", limit)
    documents.add(document, "IsTruncated", documents.boolean(is_truncated))
    documents.add(document, "ChecksumAlgorithm", multipart.checksums["algorithm"])
    documents.add(document, "ChecksumType", multipart.checksums["type"])
    for part in parts:
        entry = documents.add(document, "Part")
        documents.add(entry, "PartNumber", part.number)
        documents.add(entry, "LastModified", documents.timestamp(part.modified_at))
        documents.add(entry, "ETag", f'"{part.etag}"')
        documents.add(entry, "Size", part.size)
        for name, value in told_of(multipart, part).items():
            documents.add(entry, f"Checksum{name}", value)
    return Reply.of(document)


def _add_owners(request: Request, parent: documents.Node) -> None:
    owner = request.principal.owner
    for role in ("Initiator", "Owner"):
        documents.owner(parent, role, str(owner.pk), owner.username)


def list_uploads(request: Request) -> Reply:
    """ListMultipartUploads."""
    bucket = request.bucket()
    encoder = documents.encoder(request.query.get("encoding-type"))
    prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
    key_marker, id_marker = request.query.get("key-marker", ""), request.query.get("upload-id-marker", "")
    limit = request.number("max-uploads", MOST, 0, MOST)
    request.principal.require_place(bucket.name, prefix)
    found = objects.list_multiparts(
        bucket, prefix=prefix, delimiter=delimiter, after=(key_marker, id_marker), limit=limit
    )
    document = documents.root("ListMultipartUploadsResult")
    documents.add(document, "Bucket", bucket.name)
    documents.add(document, "KeyMarker", encoder.encode(key_marker))
    documents.add(document, "UploadIdMarker", id_marker)
    if found.last is not None:
        documents.add(document, "NextKeyMarker", encoder.encode(found.last[0]))
        documents.add(document, "NextUploadIdMarker", found.last[1])
    documents.add(document, "Prefix", encoder.encode(prefix))
    if delimiter:
        documents.add(document, "Delimiter", encoder.encode(delimiter))
    if encoder.name is not None:
        documents.add(document, "EncodingType", encoder.name)
    documents.add(document, "MaxUploads", limit)
    documents.add(document, "IsTruncated", documents.boolean(found.last is not None))
    for multipart in found.uploads:
        entry = documents.add(document, "Upload")
        documents.add(entry, "Key", encoder.encode(multipart.key))
        documents.add(entry, "UploadId", multipart.upload_id)
        _add_owners(request, entry)
        documents.add(entry, "StorageClass", multipart.storage_class)
        documents.add(entry, "Initiated", documents.timestamp(multipart.initiated_at))
        documents.add(entry, "ChecksumAlgorithm", multipart.checksums["algorithm"])
        documents.add(entry, "ChecksumType", multipart.checksums["type"])
    for common in found.prefixes:
        documents.add(documents.add(document, "CommonPrefixes"), "Prefix", encoder.encode(common))
    return Reply.of(document)
