"""Errors that S3's clients know: codes and statuses are those of the Amazon S3 API Reference, "Error Responses"."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from redis import RedisError

from storage import exceptions as domain
from storage.models.refusals import UNAVAILABLE

STATUS: Mapping[str, int] = {
    "AccessControlListNotSupported": 400,
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "AuthorizationQueryParametersError": 400,
    "BadDigest": 400,
    "BadRequest": 400,
    "BucketAlreadyExists": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "EntityTooLarge": 400,
    "EntityTooSmall": 400,
    "IncompleteBody": 400,
    "IncorrectNumberOfFilesInPostRequest": 400,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidBucketName": 400,
    "InvalidDigest": 400,
    "InvalidPart": 400,
    "InvalidPartOrder": 400,
    "InvalidPolicyDocument": 400,
    "InvalidRange": 416,
    "InvalidRequest": 400,
    "InvalidStorageClass": 400,
    "InvalidTag": 400,
    "InvalidURI": 400,
    "KeyTooLongError": 400,
    "MalformedPOSTRequest": 400,
    "MalformedXML": 400,
    "MaxPostPreDataLengthExceededError": 400,
    "MetadataTooLarge": 400,
    "MethodNotAllowed": 405,
    "MissingContentLength": 411,
    "NoSuchBucket": 404,
    "NoSuchBucketPolicy": 404,
    "NoSuchCORSConfiguration": 404,
    "NoSuchKey": 404,
    "NoSuchLifecycleConfiguration": 404,
    "NoSuchTagSet": 404,
    "NoSuchUpload": 404,
    "NoSuchVersion": 404,
    "NoSuchWebsiteConfiguration": 404,
    "NotImplemented": 501,
    "ObjectLockConfigurationNotFoundError": 404,
    "OwnershipControlsNotFoundError": 404,
    "NoSuchPublicAccessBlockConfiguration": 404,
    "PreconditionFailed": 412,
    "QuotaExceeded": 507,
    "ReplicationConfigurationNotFoundError": 404,
    "RequestIsNotMultiPartContent": 400,
    "RequestTimeTooSkewed": 403,
    "RequestTimeout": 400,
    "ServerSideEncryptionConfigurationNotFoundError": 404,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
    "ServiceUnavailable": 503,
    "UserKeyMustBeSpecified": 400,
    "XAmzContentSHA256Mismatch": 400,
}

# The codes of S3 for exceptions of the domain. An exception whose class is missing here gets the code of a base class.
CODES: Mapping[type[Exception], str] = {
    domain.BodyStalled: "RequestTimeout",
    domain.BodyTooLarge: "EntityTooLarge",
    domain.BodyTruncated: "IncompleteBody",
    domain.BucketNotEmpty: "BucketNotEmpty",
    domain.BucketOwned: "BucketAlreadyOwnedByYou",
    domain.BucketTaken: "BucketAlreadyExists",
    domain.ByteQuotaExceeded: "QuotaExceeded",
    domain.ClusterUnavailable: "ServiceUnavailable",
    domain.ContentGone: "InternalError",
    domain.ContentNotReady: "ServiceUnavailable",
    domain.ContentUnavailable: "ServiceUnavailable",
    domain.FileQuotaExceeded: "QuotaExceeded",
    domain.Forbidden: "AccessDenied",
    domain.InvalidKey: "InvalidArgument",
    domain.InvalidPart: "InvalidPart",
    domain.InvalidPartOrder: "InvalidPartOrder",
    domain.InvalidRequest: "InvalidRequest",
    domain.JobFailed: "ServiceUnavailable",
    domain.LengthRequired: "MissingContentLength",
    domain.NoSuchBucket: "NoSuchBucket",
    domain.NoSuchFile: "NoSuchKey",
    domain.NoSuchMultipart: "NoSuchUpload",
    domain.NoSuchObject: "NoSuchKey",
    domain.OutOfSpace: "QuotaExceeded",
    domain.PartTooSmall: "EntityTooSmall",
    domain.PreconditionFailed: "PreconditionFailed",
    domain.StagingUnavailable: "ServiceUnavailable",
    domain.TooManyOwnTransfers: "SlowDown",
    domain.TooManyRequests: "SlowDown",
    domain.TooManyTransfers: "SlowDown",
    domain.Unauthenticated: "AccessDenied",
    RequestDataTooBig: "EntityTooLarge",
    SuspiciousOperation: "InvalidRequest",
    RedisError: "ServiceUnavailable",
    **dict.fromkeys(UNAVAILABLE, "ServiceUnavailable"),
}
INTERNAL = "InternalError"


class S3Error(Exception):
    """An error with a code of S3.

    Attributes:
        code: one of the codes in ``STATUS``.
        details: further elements of the error document: name → text.
        headers: header fields of the answer.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        return STATUS[self.code]


def as_s3(error: Exception) -> S3Error | None:
    """The error of S3 for an error of the domain; None if the error is a defect."""
    if isinstance(error, S3Error):
        return error
    for kind in type(error).__mro__:
        if kind in CODES:
            code = CODES[kind]
            words = str(error) if isinstance(error, domain.StorageError) else HTTPStatus(STATUS[code]).phrase
            return S3Error(code, words)
    return None
