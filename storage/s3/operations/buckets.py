"""Operations on buckets."""

from __future__ import annotations

from storage.s3 import addresses, bodies, documents
from storage.s3.errors import S3Error
from storage.s3.properties import require_private
from storage.s3.request import Reply, Request
from storage.services import objects

REGION = "occ"  # The name of the region that the documentation gives. Every region is accepted.


def list_buckets(request: Request) -> Reply:
    """ListBuckets: the buckets of the key's owner."""
    owner = request.principal.owner
    after, prefix = request.query.get("continuation-token", ""), request.query.get("prefix", "")
    limit = request.number("max-buckets", 10_000, 1, 10_000)
    key_limit = request.principal.limit
    found = [bucket for bucket in objects.list_buckets(owner) if bucket.name > after and bucket.name.startswith(prefix)]
    if key_limit is not None:
        found = [bucket for bucket in found if bucket.name == key_limit.bucket]
    document = documents.root("ListAllMyBucketsResult")
    documents.owner(document, "Owner", str(owner.pk), owner.username)
    listed = documents.add(document, "Buckets")
    for bucket in found[:limit]:
        entry = documents.add(listed, "Bucket")
        documents.add(entry, "Name", bucket.name)
        documents.add(entry, "CreationDate", documents.timestamp(bucket.created_at))
    if len(found) > limit:
        documents.add(document, "ContinuationToken", found[limit - 1].name)
    if prefix:
        documents.add(document, "Prefix", prefix)
    return Reply.of(document)


def create_bucket(request: Request) -> Reply:
    """CreateBucket. The region that the client names is accepted, whatever it is."""
    addresses.require_bucket_name(request.address.bucket)
    require_private(request)
    if (request.header("x-amz-bucket-object-lock-enabled") or "").lower() == "true":
        raise S3Error("NotImplemented", "object lock is not implemented")
    if _has_body(request) and (data := bodies.whole(request)):
        documents.parse(data, "CreateBucketConfiguration")
    objects.create_bucket(request.principal.owner, request.address.bucket)
    return Reply(200, {"Location": f"/{request.address.bucket}"})


def _has_body(request: Request) -> bool:
    environ = request.environ
    return environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ


def head_bucket(request: Request) -> Reply:
    """HeadBucket."""
    request.bucket()
    return Reply(200, {"x-amz-bucket-region": REGION, "x-amz-access-point-alias": "false"})


def delete_bucket(request: Request) -> Reply:
    """DeleteBucket: a bucket that has objects stays."""
    objects.delete_bucket(request.bucket())
    return Reply(204)


def get_location(request: Request) -> Reply:
    """GetBucketLocation."""
    request.bucket()
    document = documents.root("LocationConstraint")
    document.text = REGION
    return Reply.of(document)
