"""Everything that can go wrong in the domain; ``storage.api.errors`` maps it to HTTP."""

from __future__ import annotations

from typing import ClassVar


class StorageError(Exception):
    """Base of all domain errors.

    Attributes:
        code: the word by which a client's program recognises this error, listed in ``docs/errors.md``. Clients rely on
            codes: a code never changes, and never gets another meaning.
    """

    code: ClassVar[str] = "internal_error"


class ConfigurationError(StorageError):
    """The environment, or the cluster that it names, does not allow a start."""


# -- volumes ---------------------------------------------------------------


class VolumeError(StorageError):
    """A volume could not do what it was asked to do."""


class VolumeOffline(VolumeError):
    """The volume is not there, does not answer in time, or fails to read or write."""


class ForeignVolume(VolumeOffline):
    """No volume is at the address, or the volume there belongs to another node or cluster."""


class VolumeFull(VolumeError):
    """No space, or no inode, is left on the volume."""


class VolumeReadOnly(VolumeError):
    """The volume can be read, but cannot be written to."""


class VolumeUnasked(VolumeError):
    """This process lacks descriptors, threads or memory to ask the volume; the volume itself may be well."""


class ReplicaMissing(VolumeError):
    """The volume holds no replica of the chunk."""


class ReplicaCorrupt(VolumeError):
    """The bytes of a replica do not have the hash that is the replica's name."""


# -- cluster ---------------------------------------------------------------


class ClusterUnavailable(StorageError):
    """Too few nodes are online for this request; the client may retry later."""

    code = "cluster_unavailable"


class OutOfSpace(StorageError):
    """No node has room for another replica."""

    code = "out_of_space"


class StagingUnavailable(StorageError):
    """The directory in which uploads wait for their ingest is missing, or cannot be written to."""

    code = "staging_unavailable"


class TooFewReplicas(StorageError):
    """Some chunks got fewer durable replicas than an acknowledgement needs; ``lack`` names what was missing."""

    def __init__(self, lack: str) -> None:
        super().__init__(f"too few {lack}")
        self.lack = lack


class ForeignDatabase(StorageError):
    """The volumes were written under another database, or under a newer state of this one (RACES 12)."""


# -- backups ---------------------------------------------------------------


class BackupError(StorageError):
    """A backup cannot be taken, is not whole, or cannot be restored here."""


# -- files -----------------------------------------------------------------


class NoSuchFile(StorageError):
    """The owner has no file with this hash."""

    code = "no_such_file"


class NoSuchLink(StorageError):
    """No share link is at this address, or it has expired or was revoked."""

    code = "no_such_link"


class TooManyLinks(StorageError):
    """The file has as many share links as a file may have."""

    code = "too_many_links"


class NoSuchChunk(StorageError):
    """No file has a chunk with this hash."""

    code = "no_such_chunk"


class NoSuchNode(StorageError):
    """No node has this id, or the node is retired."""

    code = "no_such_node"


class NoSuchDeletion(StorageError):
    """The owner has no such deletion, or it was undone already."""

    code = "no_such_deletion"


class DeletionFinal(StorageError):
    """The deletion can no longer be undone: its time is over, or bytes of its files have been freed."""

    code = "deletion_final"


class NoSuchJob(StorageError):
    """No job has this id."""

    code = "no_such_job"


class ContentNotReady(StorageError):
    """The file has been accepted but its ingest has not ended."""

    code = "content_not_ready"


class ContentUnavailable(StorageError):
    """A chunk cannot be read now: the nodes that may hold it are offline."""

    code = "content_unavailable"


class ContentGone(StorageError):
    """Every node that is not retired answers that it has no copy of a chunk."""

    code = "content_gone"


class InvalidRequest(StorageError):
    """The client's request cannot be accepted; ``errors`` has messages by field."""

    code = "invalid_request"

    def __init__(self, detail: str, errors: dict[str, list[str]] | None = None) -> None:
        super().__init__(detail)
        self.errors = errors or {}


class BodyTruncated(InvalidRequest):
    """The body ended before its declared length."""

    code = "body_truncated"


class BodyStalled(StorageError):
    """The client stopped sending."""

    code = "body_stalled"


class LengthRequired(StorageError):
    """The request does not say how long its body is."""

    code = "length_required"


class BodyTooLarge(StorageError):
    """The body is larger than MAX_UPLOAD_SIZE."""

    code = "body_too_large"


class NoSuchUpload(StorageError):
    """The owner has no upload at this address, or the upload has expired, was ended, or lost its staged bytes."""

    code = "no_such_upload"


class OffsetMismatch(StorageError):
    """The first byte of the request is not the next byte that the upload needs."""

    code = "offset_mismatch"

    def __init__(self, offset: int) -> None:
        """
        Args:
            offset: the number of bytes that have arrived.
        """
        super().__init__(f"the upload goes on at byte {offset}")
        self.headers = {"Upload-Offset": str(offset)}


class UploadTakenOver(StorageError):
    """A newer request sends the bytes of this upload now."""

    code = "upload_taken_over"


class ChecksumMismatch(StorageError):
    """The bytes of a request do not have the checksum that the client sent, and are dropped."""

    code = "checksum_mismatch"


class UnsupportedProtocol(StorageError):
    """The request names no version of a protocol for resumable uploads that is known here."""

    code = "unsupported_protocol"

    def __init__(self, detail: str, headers: dict[str, str]) -> None:
        """
        Args:
            detail: what the request lacks.
            headers: the header fields that name the known versions.
        """
        super().__init__(detail)
        self.headers = headers


class TooManyTransfers(StorageError):
    """Every thread that may serve a transfer is busy."""

    code = "too_many_transfers"


# -- objects ---------------------------------------------------------------


class NoSuchBucket(StorageError):
    """No bucket has this name."""

    code = "no_such_bucket"


class BucketOwned(StorageError):
    """The caller has a bucket of this name already."""


class BucketTaken(StorageError):
    """Another owner has a bucket of this name."""


class BucketNotEmpty(StorageError):
    """The bucket has objects."""


class NoSuchObject(StorageError):
    """The bucket has no object under this key."""

    code = "no_such_object"


class NoSuchMultipart(StorageError):
    """The multipart upload does not exist, was aborted, or has expired."""


class InvalidKey(StorageError):
    """The text cannot be a key: it is empty or too long, or has characters that UTF-8 or PostgreSQL does not know."""

    code = "invalid_object_key"


class InvalidPart(StorageError):
    """A part does not exist, or is not the part that the client means."""


class InvalidPartOrder(StorageError):
    """The parts are not in ascending order."""


class PartTooSmall(StorageError):
    """A part that is not the last one is smaller than a part may be."""


class PreconditionFailed(StorageError):
    """The object is not in the state that the client requires for its change."""


# -- accounts --------------------------------------------------------------


class Unauthenticated(StorageError):
    """The request shows no key, or a key that is not good."""

    code = "unauthenticated"


class Forbidden(StorageError):
    """The key of the request does not allow the request."""

    code = "forbidden"


class TooManyRequests(StorageError):
    """The key or the address has used up the requests that RATE_LIMIT allows, or the attempts to log in."""

    code = "rate_limited"

    def __init__(self, detail: str, *, limit: int, wait: int) -> None:
        """
        Args:
            detail: the limit in words.
            limit: the number of requests that are allowed.
            wait: seconds until the next request is allowed.
        """
        super().__init__(detail)
        self.limit = limit
        self.wait = wait


class ByteQuotaExceeded(StorageError):
    """The file has more bytes than are left of its owner's quota."""

    code = "byte_quota_exceeded"


class FileQuotaExceeded(StorageError):
    """The owner has as many files as the owner's quota allows."""

    code = "file_quota_exceeded"


class TooManyOwnTransfers(StorageError):
    """The owner has as many transfers under way as MAX_TRANSFERS_PER_OWNER allows."""

    code = "too_many_own_transfers"


class NoSuchKey(StorageError):
    """No key has this id, or the key has been revoked."""

    code = "no_such_key"


class SecretUnreadable(StorageError):
    """The secret of a key was encrypted under a SECRET_KEY that this service does not have."""


# -- jobs ------------------------------------------------------------------


class LeaseLost(StorageError):
    """Another worker has taken the job over, or the job was cancelled: the worker must stop at once."""


class TurnEnded(StorageError):
    """A long job makes way for other jobs: it is put back into the queue and goes on later."""


class StagingDamaged(StorageError):
    """The bytes that are read from staging are not the bytes that arrived."""


class NotPossible(StorageError):
    """The request is right, but the state of the job or of the node does not allow it."""

    code = "not_possible"


class JobFailed(StorageError):
    """A job that a client waits for has failed, or was cancelled."""

    code = "job_failed"


class IngestFailed(JobFailed):
    """The upload was received but could not be stored."""

    code = "ingest_failed"
