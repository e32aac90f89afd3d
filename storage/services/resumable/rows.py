"""Steps that several operations on resumable uploads share: admission, changes by the writer, queueing the ingest."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any, NoReturn

from storage.accounts import quotas
from storage.cluster.admission import admit
from storage.conf import configuration
from storage.exceptions import BodyTooLarge, NoSuchUpload, UploadTakenOver
from storage.models import Job, Resumable, Upload
from storage.models.clock import Clock
from storage.staging.cutting import chunk_count


def require_room(upload: Resumable, size: int, factor: int, *, is_whole: bool = True) -> None:
    """Admit an upload before its bytes come: the size, the owner's quota, and the room in staging and on the nodes.

    Args:
        upload: the upload, which may have no row yet.
        size: bytes of the body, as far as the client has announced them.
        factor: the number of replicas that the file should have.
        is_whole: False if the body may turn out to be larger.

    Raises:
        BodyTooLarge: the body is larger than MAX_UPLOAD_SIZE.
        ByteQuotaExceeded, FileQuotaExceeded: the owner's quota has no room for the body.
        ClusterUnavailable: too few nodes are online.
        OutOfSpace: staging or the nodes have no room for the body.
        StagingUnavailable: staging cannot be used.
    """
    limit = configuration().max_upload_size
    if size > limit:
        raise BodyTooLarge(f"the body is larger than {limit} bytes")
    require_quota(upload, size, is_whole=is_whole)
    admit(size - upload.offset, factor)


def require_quota(upload: Resumable, size: int, *, is_whole: bool) -> None:
    """Refuse bytes that do not fit into the owner's quota together with the owner's other uploads that are under way.

    This check only refuses early. Concurrent uploads may all pass this check; the check at their acceptance then
    decides.

    Args:
        upload: the upload, which may have no row yet.
        size: bytes of the body, as far as they are known.
        is_whole: False if the body may turn out to be larger.

    Raises:
        ByteQuotaExceeded, FileQuotaExceeded: the quota has no room.
    """
    allowance = quotas.allowance(upload.owner_id, upload.name)
    if allowance is not None:
        others = Upload.objects.filter(owner=upload.owner_id, state=Upload.State.RESUMABLE).exclude(pk=upload.pk)
        pending = sum(reserved // factor for reserved, factor in others.values_list("reserved", "replication_factor"))
        allowance.require(size + pending, so_far=not is_whole)


def lifetime() -> timedelta:
    """How long an upload is kept after its last bytes."""
    return timedelta(seconds=configuration().resumable_upload_expires)


def missing(upload_id: object) -> NoReturn:
    """
    Raises:
        NoSuchUpload: always. Nobody learns whether another owner has an upload of this id.
    """
    raise NoSuchUpload(f"no upload {upload_id}")


def change(upload: Resumable, **values: Any) -> None:
    """Change an upload's row, and ``upload`` with it, if the caller is still its writer.

    Raises:
        UploadTakenOver: a newer request is its writer.
        NoSuchUpload: the upload was ended.
    """
    mine = Resumable.objects.filter(pk=upload.pk, writer=upload.writer)
    if not mine.update(**values, expires_at=Clock() + lifetime()):
        refuse(upload)
    for name, value in values.items():
        setattr(upload, name, value)


def refuse(upload: Resumable) -> NoReturn:
    """Tell a request why it may not write any more.

    Raises:
        UploadTakenOver: a newer request is the writer, or was the writer and has sent the last byte.
        NoSuchUpload: the upload was ended, or owns no bytes any more.
    """
    if Resumable.objects.filter(pk=upload.pk).exclude(writer=upload.writer).exists():
        raise UploadTakenOver("a newer request sends the bytes of this upload")
    missing(upload.pk)


def queue_ingest(upload_id: uuid.UUID, owner_id: int, size: int) -> Job:
    """Queue the job that hashes and stores an upload. From here on only a worker changes the upload's row."""
    row = Upload.objects.filter(pk=upload_id).first() or missing(upload_id)
    row.state = Upload.State.ACCEPTED
    row.reserved = size * row.replication_factor
    row.save(update_fields=["state", "reserved"])
    return Job.objects.create(
        kind=Job.Kind.INGEST,
        queue=Job.Queue.INGEST,
        priority=Job.Kind.INGEST.priority,
        upload_id=upload_id,
        owner_id=owner_id,
        size=size,
        total=chunk_count(size, row.piece_size),
    )
