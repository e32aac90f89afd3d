"""The operation that a request asks for. Pure.

The names are those of the Amazon S3 API Reference.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from storage.s3.errors import S3Error

# Parameters of the query that name a subresource of a bucket or object, such as its tags, and so choose the operation.
# Parameters that are not listed here are read by the operation or by the check of the signature, or are ignored.
OF_BUCKETS = frozenset(
    [
        "abac",
        "accelerate",
        "acl",
        "analytics",
        "attributes",
        "cors",
        "delete",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "lifecycle",
        "location",
        "logging",
        "metadataConfiguration",
        "metadataTable",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "replication",
        "requestPayment",
        "session",
        "tagging",
        "uploads",
        "versioning",
        "versions",
        "website",
    ]
)
OF_OBJECTS = frozenset(
    [
        "acl",
        "attributes",
        "encryption",
        "legal-hold",
        "renameObject",
        "restore",
        "retention",
        "select",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
    ]
)

POST_OBJECT = "PostObject"  # The object's key and the signature of this operation are in the body.

# method and parameter → operation. An empty text stands for a request without such a parameter.
ON_BUCKETS: Mapping[tuple[str, str], str] = {
    ("GET", ""): "ListObjects",
    ("GET", "list-type"): "ListObjectsV2",
    ("GET", "accelerate"): "GetBucketAccelerateConfiguration",
    ("GET", "acl"): "GetBucketAcl",
    ("GET", "cors"): "GetBucketCors",
    ("GET", "encryption"): "GetBucketEncryption",
    ("GET", "lifecycle"): "GetBucketLifecycleConfiguration",
    ("GET", "location"): "GetBucketLocation",
    ("GET", "logging"): "GetBucketLogging",
    ("GET", "notification"): "GetBucketNotificationConfiguration",
    ("GET", "object-lock"): "GetObjectLockConfiguration",
    ("GET", "ownershipControls"): "GetBucketOwnershipControls",
    ("GET", "policy"): "GetBucketPolicy",
    ("GET", "policyStatus"): "GetBucketPolicyStatus",
    ("GET", "publicAccessBlock"): "GetPublicAccessBlock",
    ("GET", "replication"): "GetBucketReplication",
    ("GET", "requestPayment"): "GetBucketRequestPayment",
    ("GET", "tagging"): "GetBucketTagging",
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "versioning"): "GetBucketVersioning",
    ("GET", "versions"): "ListObjectVersions",
    ("GET", "website"): "GetBucketWebsite",
    ("HEAD", ""): "HeadBucket",
    ("PUT", ""): "CreateBucket",
    ("PUT", "acl"): "PutBucketAcl",
    ("DELETE", ""): "DeleteBucket",
    ("POST", ""): POST_OBJECT,
    ("POST", "delete"): "DeleteObjects",
}
ON_OBJECTS: Mapping[tuple[str, str], str] = {
    ("GET", ""): "GetObject",
    ("GET", "acl"): "GetObjectAcl",
    ("GET", "attributes"): "GetObjectAttributes",
    ("GET", "tagging"): "GetObjectTagging",
    ("GET", "uploadId"): "ListParts",
    ("HEAD", ""): "HeadObject",
    ("PUT", ""): "PutObject",
    ("PUT", "acl"): "PutObjectAcl",
    ("PUT", "tagging"): "PutObjectTagging",
    ("PUT", "uploadId"): "UploadPart",
    ("POST", "uploads"): "CreateMultipartUpload",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("DELETE", ""): "DeleteObject",
    ("DELETE", "tagging"): "DeleteObjectTagging",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
}
COPIES: Mapping[str, str] = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}
NAMES = frozenset(("ListBuckets", *ON_BUCKETS.values(), *ON_OBJECTS.values(), *COPIES.values()))


def operation_of(method: str, bucket: str, key: str, parameters: Collection[str], *, copies: bool) -> str:
    """The name of the operation.

    Args:
        method: the HTTP method.
        bucket: the bucket's name; empty if the address names none.
        key: the object's key; empty if the address names none.
        parameters: the names of the query's parameters.
        copies: True if the request names the source of a copy.

    Raises:
        S3Error: there is no such operation, or it is not implemented here.
    """
    if not bucket:
        if method != "GET":
            raise _not_allowed(method)
        return "ListBuckets"
    table, parts = (ON_OBJECTS, OF_OBJECTS) if key else (ON_BUCKETS, OF_BUCKETS)
    part = next((name for name in parameters if name in parts), "")
    if not part and not key and method == "GET" and "list-type" in parameters:
        part = "list-type"
    operation = table.get((method, part))
    if operation is None:
        if part:
            raise S3Error("NotImplemented", f"{method} of {part} is not implemented")
        raise _not_allowed(method)
    return COPIES.get(operation, operation) if copies else operation


def _not_allowed(method: str) -> S3Error:
    return S3Error(
        "MethodNotAllowed",
        "The specified method is not allowed against this resource.",
        details={"Method": method},
    )
