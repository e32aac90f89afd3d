"""Settings that are the same for all buckets and objects: the owner may do everything, and other users nothing."""

from __future__ import annotations

from collections.abc import Callable

from storage.s3 import bodies, documents
from storage.s3.errors import S3Error
from storage.s3.properties import require_private
from storage.s3.request import Reply, Request
from storage.services import objects

# Settings that no bucket has: operation that reads the setting → code and message of the error.
ABSENT = {
    "GetBucketCors": ("NoSuchCORSConfiguration", "The CORS configuration does not exist"),
    "GetBucketEncryption": (
        "ServerSideEncryptionConfigurationNotFoundError",
        "The server side encryption configuration was not found",
    ),
    "GetBucketLifecycleConfiguration": (
        "NoSuchLifecycleConfiguration",
        "The lifecycle configuration does not exist",
    ),
    "GetBucketOwnershipControls": ("OwnershipControlsNotFoundError", "The bucket ownership controls were not found"),
    "GetBucketPolicy": ("NoSuchBucketPolicy", "The bucket policy does not exist"),
    "GetBucketPolicyStatus": ("NoSuchBucketPolicy", "The bucket policy does not exist"),
    "GetBucketReplication": (
        "ReplicationConfigurationNotFoundError",
        "The replication configuration was not found",
    ),
    "GetBucketTagging": ("NoSuchTagSet", "The TagSet does not exist"),
    "GetBucketWebsite": (
        "NoSuchWebsiteConfiguration",
        "The specified bucket does not have a website configuration",
    ),
    "GetObjectLockConfiguration": (
        "ObjectLockConfigurationNotFoundError",
        "Object Lock configuration does not exist for this bucket",
    ),
    "GetPublicAccessBlock": (
        "NoSuchPublicAccessBlockConfiguration",
        "The public access block configuration was not found",
    ),
}
# Settings that have no value in any bucket: operation that reads the setting → root of the answer.
EMPTY = {
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
    "GetBucketVersioning": "VersioningConfiguration",
}


def absent(operation: str) -> Callable[[Request], Reply]:
    """The handler for reading a setting that no bucket has."""
    code, words = ABSENT[operation]

    def answer(request: Request) -> Reply:
        request.bucket()
        raise S3Error(code, words, details={"BucketName": request.address.bucket})

    return answer


def empty(operation: str) -> Callable[[Request], Reply]:
    """The handler for reading a setting that has no value in any bucket."""

    def answer(request: Request) -> Reply:
        request.bucket()
        return Reply.of(documents.root(EMPTY[operation]))

    return answer


def get_request_payment(request: Request) -> Reply:
    """GetBucketRequestPayment."""
    request.bucket()
    document = documents.root("RequestPaymentConfiguration")
    documents.add(document, "Payer", "BucketOwner")
    return Reply.of(document)


def get_acl(request: Request) -> Reply:
    """GetBucketAcl and GetObjectAcl: the owner may do everything."""
    bucket = request.bucket()
    if request.key:
        objects.find(bucket, request.key)
    owner = request.principal.owner
    document = documents.root("AccessControlPolicy")
    documents.owner(document, "Owner", str(owner.pk), owner.username)
    grant = documents.add(documents.add(document, "AccessControlList"), "Grant")
    grantee = documents.owner(grant, "Grantee", str(owner.pk), owner.username)
    grantee.set("xmlns:xsi", documents.SCHEMA_INSTANCE)
    grantee.set("xsi:type", "CanonicalUser")
    documents.add(grant, "Permission", "FULL_CONTROL")
    return Reply.of(document)


def put_acl(request: Request) -> Reply:
    """PutBucketAcl and PutObjectAcl: only the private list is accepted, which all buckets and objects have."""
    bucket = request.bucket()
    require_private(request)
    if request.header("x-amz-acl") is None:
        _require_own_list(request)
    if request.key:  # The object is looked for after the body, so that no connection is held while the body arrives.
        objects.find(bucket, request.key)
    return Reply()


def _require_own_list(request: Request) -> None:
    document = bodies.document(request, "AccessControlPolicy")
    own = str(request.principal.owner.pk)
    for grant in document.iter("Grant"):
        grantee = grant.find("Grantee")
        if grantee is None or documents.text_of(grantee, "ID") != own:
            raise S3Error("AccessControlListNotSupported", "The bucket does not allow ACLs")
