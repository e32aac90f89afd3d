"""Everything that can go wrong in the domain; ``storage.api.errors`` maps it to HTTP."""

from __future__ import annotations

from typing import ClassVar


class StorageError(Exception):
    """Base of all domain errors.

    Attributes:
        code: the word by which a client's program tells this error from others, listed in ``docs/errors.md``. Clients
            rely on it: a code never changes, and never gets another meaning.
    """

    code: ClassVar[str] = "internal_error"


class ConfigurationError(StorageError):
    """The environment, or the cluster it meets, does not allow a start."""


# -- volumes ---------------------------------------------------------------


class VolumeError(StorageError):
    """A volume could not do what it was asked."""


class VolumeOffline(VolumeError):
    """The volume is not there, does not answer in time, or fails to read or write."""


class ForeignVolume(VolumeOffline):
    """What lies at the volume's address is empty or belongs to another node or cluster."""


class VolumeFull(VolumeError):
    """No space, or no inode, is left on the volume."""


class VolumeReadOnly(VolumeError):
    """The volume can be read, and not be written to."""


class VolumeUnasked(VolumeError):
    """This process lacks descriptors, threads or memory to ask the volume: that says nothing about the volume."""


class ReplicaMissing(VolumeError):
    """The volume holds no replica of the chunk."""


class ReplicaCorrupt(VolumeError):
    """The bytes of a replica do not have the hash they are named by."""


# -- cluster ---------------------------------------------------------------


class ClusterUnavailable(StorageError):
    """Too few nodes are online for what was asked; it may be tried again later."""

    code = "cluster_unavailable"


class OutOfSpace(StorageError):
    """No node has room for another replica."""

    code = "out_of_space"


class StagingUnavailable(StorageError):
    """The folder where uploads wait for their ingest is missing, or cannot be written to."""

    code = "staging_unavailable"


class TooFewReplicas(StorageError):
    """Some chunks got fewer durable replicas than an acknowledgement needs; ``lack`` says for want of what."""

    def __init__(self, lack: str) -> None:
        super().__init__(f"too few {lack}")
        self.lack = lack


class ForeignDatabase(StorageError):
    """The database is not the one, or is older than the one, that wrote the volumes (RACES 12)."""


# -- files -----------------------------------------------------------------


class NoSuchFile(StorageError):
    """The owner has no file of that hash."""

    code = "no_such_file"


class NoSuchChunk(StorageError):
    """No file has a chunk of that hash."""

    code = "no_such_chunk"


class NoSuchNode(StorageError):
    """There is no node of that id that is not retired."""


class NoSuchJob(StorageError):
    """There is no job of that id."""

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
    """What the client sent cannot be accepted; ``errors`` has messages by field."""

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


class TooManyTransfers(StorageError):
    """Every thread that may serve a transfer is busy."""

    code = "too_many_transfers"


# -- jobs ------------------------------------------------------------------


class LeaseLost(StorageError):
    """Another worker has taken the job over, or it was cancelled: stop at once."""


class TurnEnded(StorageError):
    """A long job makes way for others: it is put back and goes on later."""


class StagingDamaged(StorageError):
    """What staging gives back is not what came in."""


class JobFailed(StorageError):
    """A job that a client waits for has failed, or was cancelled."""

    code = "job_failed"


class IngestFailed(JobFailed):
    """The upload was received but could not be stored."""

    code = "ingest_failed"
