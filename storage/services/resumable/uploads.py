"""Begin, find, take over, join and end uploads that arrive in several requests."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog
from django.contrib.auth.models import User
from django.db import connection, transaction

from storage.conf import configuration
from storage.exceptions import InvalidRequest
from storage.jobs import wakeups
from storage.models import Job, Resumable, Upload
from storage.models.clock import Clock
from storage.services.resumable.rows import lifetime, missing, queue_ingest, require_room
from storage.staging import files

log = structlog.get_logger(__name__)

LISTED = 1000


@dataclass(frozen=True)
class Plan:
    """What a client says about an upload before its bytes arrive.

    Attributes:
        name: the file's name; None if the client gives none.
        factor: the number of replicas that the file should have.
        metadata: text about the upload that the client gives and can read back later.
        length: bytes of the whole body; None if the client does not know them yet.
        is_partial: True if the upload becomes a part of another upload.
    """

    name: str | None
    factor: int
    metadata: str = ""
    length: int | None = None
    is_partial: bool = False


def begin(owner: User, plan: Plan) -> Resumable:
    """Make an upload to which bytes can be sent. The caller is the writer of the new upload.

    Raises:
        StorageError: one of the errors of ``require_room``.
    """
    upload = _planned(owner, plan)
    require_room(upload, plan.length or 0, plan.factor, is_whole=plan.length is not None)
    with transaction.atomic():
        _record(upload, plan.factor)
    connection.close()  # The connection goes back to the pool: the caller may now wait long for its client.
    log.info("upload.begun", upload=str(upload.pk), length=plan.length)
    return upload


def find(owner: User, upload_id: str) -> Resumable:
    """The upload as it is now. A request that sends bytes is not disturbed.

    Raises:
        NoSuchUpload: the owner has no such upload.
    """
    mine = Resumable.objects.of(owner.pk).select_related("job")
    return mine.filter(pk=_read_id(upload_id)).first() or missing(upload_id)


def unfinished(owner: User) -> list[Resumable]:
    """The owner's uploads of which bytes are still to come, the newest first, and at most ``LISTED``."""
    return list(Resumable.objects.arriving(owner.pk)[:LISTED])


def take_over(owner: User, upload_id: str) -> Resumable:
    """Become the only writer of an upload, and learn its offset. A request that still sends bytes to the upload is
    stopped.

    Raises:
        NoSuchUpload: the owner has no such upload.
    """
    upload = Resumable.objects.take_over(owner.pk, _read_id(upload_id), lifetime())
    connection.close()  # The connection goes back to the pool: the caller may now wait long for its client.
    return upload or missing(upload_id)


def join(owner: User, plan: Plan, part_ids: Sequence[str]) -> Resumable:
    """Make an upload whose body is the bodies of parts, one after the other. A worker copies the bytes of the parts,
    and then removes the parts.

    Raises:
        NoSuchUpload: the owner has no such part.
        InvalidRequest: a part is no partial upload, is not complete, or is named twice.
        StorageError: one of the errors of ``require_room``.
    """
    ids = [_read_id(part_id) for part_id in part_ids]
    if len(set(ids)) < len(ids):  # A small request must not make a worker copy one part a thousand times.
        raise InvalidRequest("a part is named twice", {"Upload-Concat": ["Each part once."]})
    with transaction.atomic():
        parts = {part.pk: part for part in Resumable.objects.of(owner.pk).locked(ids)}
        for part_id in ids:
            part = parts.get(part_id) or missing(part_id)
            if not (part.is_partial and part.is_complete):
                raise InvalidRequest("a part is not ready", {"Upload-Concat": [f"{part_id} is not a whole part."]})
        length = sum(parts[part_id].offset for part_id in ids)
        Upload.objects.filter(pk__in=parts).update(reserved=0)  # The joined upload reserves their room.
        upload = _planned(owner, replace(plan, length=length), ids)
        require_room(upload, length, plan.factor)
        _record(upload, plan.factor)
        upload.job = queue_ingest(upload.pk, owner.pk, length)
        together = Resumable.objects.filter(pk__in=[upload.pk, *parts])
        together.update(job=upload.job, expires_at=Clock() + lifetime())
    wakeups.wake(Job.Queue.INGEST)
    log.info("upload.joined", upload=str(upload.pk), job=str(upload.job_id), parts=len(ids))
    return upload


def end(owner: User, upload_id: str) -> None:
    """Forget an upload, and drop its bytes unless they have become a file.

    Raises:
        NoSuchUpload: the owner has no such upload.
    """
    key = _read_id(upload_id)
    with transaction.atomic():
        (upload,) = Resumable.objects.of(owner.pk).locked([key]) or (missing(upload_id),)
        is_dropped = upload.drop()
    if is_dropped:
        files.discard(key)
    log.info("upload.ended", upload=str(key), dropped=is_dropped)


def _planned(owner: User, plan: Plan, parts: Sequence[uuid.UUID] | None = None) -> Resumable:
    """An upload that is not recorded yet."""
    return Resumable(
        owner=owner,
        name=plan.name,
        metadata=plan.metadata,
        length=plan.length,
        is_partial=plan.is_partial,
        parts=None if parts is None else [str(part_id) for part_id in parts],
    )


def _record(upload: Resumable, factor: int) -> None:
    """Record an upload, and the row that will own its staged bytes and that reserves room for them."""
    Upload.objects.create(
        pk=upload.pk,
        owner_id=upload.owner_id,
        state=Upload.State.RESUMABLE,
        replication_factor=factor,
        reserved=(upload.length or 0) * factor,
        piece_size=configuration().chunk_size,
    )
    upload.expires_at = Clock() + lifetime()  # PostgreSQL computes this time.
    upload.save(force_insert=True)
    upload.refresh_from_db()


def _read_id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        missing(text)
