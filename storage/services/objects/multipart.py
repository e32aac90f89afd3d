"""Multipart uploads: begin, take parts, complete, abort, list the parts (RACES 49)."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import pairwise
from typing import NoReturn

import structlog
from django.db import transaction
from django.db.models.functions import Now

from storage import phases
from storage.conf import configuration
from storage.exceptions import (
    ClusterUnavailable,
    InvalidPart,
    InvalidPartOrder,
    InvalidRequest,
    NoSuchMultipart,
    NoSuchObject,
    PartTooSmall,
)
from storage.models import Bucket, Chunk, Content, Multipart, OpenObject, Part, Properties, Quota, Usage
from storage.models.clock import Clock
from storage.models.dropping import drop_multipart
from storage.models.refusals import UNAVAILABLE
from storage.services.objects.places import (
    ALWAYS,
    GONE,
    Condition,
    Draft,
    Place,
    require_key,
    require_text,
    until_not_overtaken,
)
from storage.services.objects.putting import discard, stored_part

log = structlog.get_logger(__name__)

LEAST_PART = 5 << 20  # Only the last part may have fewer bytes than this, as in S3.
MOST_PARTS = 10_000

Seal = Callable[[Multipart, Sequence[Part]], dict[str, str]]
"""A function of a multipart upload and the parts of its object, in order. It returns the object's checksums, or raises
an error if the parts are not what the client means."""


@dataclass(frozen=True)
class Completed:
    """The object that a multipart upload has become: its size, its ETag and its checksums."""

    size: int
    etag: str
    checksums: dict[str, str]


def begin_multipart(
    bucket: Bucket, key: str, properties: Properties, *, checksums: dict[str, str] | None = None
) -> Multipart:
    """Make a multipart upload.

    Args:
        bucket: the bucket.
        key: the key of the future object.
        properties: what the client says about the future object.
        checksums: what the S3 door has to remember about the checksums of the parts and of the object.

    Raises:
        InvalidKey, InvalidRequest: the key or a property has characters that cannot be stored.
        NoSuchBucket: the bucket has been deleted.
    """
    require_key(key)
    require_text(properties)
    upload = Multipart(bucket=bucket, key=key, checksums=checksums or {}, expires_at=Clock() + _lifetime())
    upload.describe(properties)
    with transaction.atomic():
        bucket.lock()
        upload.save(force_insert=True)
    upload.refresh_from_db()
    log.info("multipart.begun", bucket=bucket.name, upload=upload.upload_id)
    return upload


def find_multipart(bucket: Bucket, key: str, upload_id: str) -> Multipart:
    """Find a multipart upload that is neither completed nor aborted.

    Raises:
        NoSuchMultipart: there is no such upload.
    """
    found = Multipart.objects.open_in(bucket).filter(pk=_read_id(upload_id), key=key).first()
    return found or _missing(upload_id)


def put_part(multipart: Multipart, number: int, part_id: int) -> Part:
    """Make a stored body a part of a multipart upload. If the call fails, the body is dropped.

    Args:
        multipart: the upload.
        number: 1 to ``MOST_PARTS``; a part of the upload that had this number before is deleted.
        part_id: the pending part, whose body has been stored.

    Raises:
        InvalidRequest: the number is out of range.
        NoSuchMultipart: the upload was completed or aborted.
        ClusterUnavailable, ContentNotReady: as for ``put``.
    """
    try:
        with transaction.atomic():
            _require_number(number)
            _lock_open(multipart)
            part = stored_part(part_id)
            phases.enter("object.part")
            _take(multipart, number, part)
    except BaseException:
        with suppress(*UNAVAILABLE):  # If ``discard`` fails, the sweeper drops the part.
            discard(part_id)
        raise
    log.info("multipart.part", upload=multipart.upload_id, number=number, size=part.size)
    return part


def copy_part(multipart: Multipart, number: int, source: OpenObject, span: range) -> Part | None:
    """Make a range of an object a part of a multipart upload, if that needs no byte to be moved.

    Args:
        multipart: the upload.
        number: the number of the new part, as for ``put_part``.
        source: the object to copy from.
        span: the range of byte positions in that object.

    Returns:
        None if the range is not exactly one part of the object: the caller then has to read and store its bytes.

    Raises:
        InvalidRequest, NoSuchMultipart: as for ``put_part``.
        NoSuchObject: the object was overwritten or deleted since it was opened.
        ByteQuotaExceeded: the part does not fit into the quota of the owner or the bucket.
    """
    _require_number(number)
    twin = next((part for part in source.parts if part.span == span), None)
    if twin is None:
        return None
    with transaction.atomic():
        quota = Quota.lock(multipart.bucket.owner_id)
        bucket = multipart.bucket.lock()
        _lock_open(multipart)
        Content.objects.locked([twin.content.content_id, *_contents_at(multipart, number)])
        if not Part.objects.filter(pk=twin.part_id, object=source.object_id).exists():
            raise NoSuchObject(f"no object {source.key}")
        part = Part.objects.create(
            bucket=bucket,
            content_id=twin.content.content_id,
            size=twin.size,
            etag=twin.etag,
            checksums=twin.checksums,
            replication_factor=multipart.properties.factor_in(bucket),
        )
        _take(multipart, number, part)
        for limit, used in ((quota, Usage.of(bucket.owner_id)), (bucket.quota, bucket.used)):
            if limit is not None:
                limit.require(used.without(part.size), part.size, files=0)
    return part


def list_parts(multipart: Multipart, *, after: int = 0, limit: int = 1000) -> tuple[list[Part], bool]:
    """The parts of a multipart upload with numbers greater than ``after``, in order; and whether more parts follow."""
    parts = list(Part.objects.filter(multipart=multipart, number__gt=after).order_by("number")[: limit + 1])
    return parts[:limit], len(parts) > limit


def complete(
    bucket: Bucket,
    key: str,
    upload_id: str,
    chosen: Sequence[tuple[int, str]],
    *,
    condition: Condition = ALWAYS,
    seal: Seal = lambda upload, _: upload.checksums,
) -> Completed:
    """Make the chosen parts one object, in one commit, and delete the parts that were not chosen. No part is read.

    A client that has lost the answer asks again, and gets the same answer until the upload expires.

    Args:
        bucket: the bucket.
        key: the key of the object.
        upload_id: the upload's id.
        chosen: (number, ETag without quotes) of each part, in ascending order.
        condition: what must be at the key before the change.
        seal: see ``Seal``.

    Raises:
        NoSuchMultipart: there is no such upload.
        InvalidRequest: no part was chosen.
        InvalidPartOrder: the numbers do not ascend.
        InvalidPart: a part does not exist, or has another ETag.
        PartTooSmall: a part other than the last one is smaller than ``LEAST_PART``.
        NoSuchBucket, PreconditionFailed, NoSuchObject, FileQuotaExceeded: as for ``put``.
    """
    completed = _complete(bucket, key, _read_id(upload_id), chosen, condition, seal)
    log.info("multipart.completed", bucket=bucket.name, upload=upload_id, parts=len(chosen), size=completed.size)
    return completed


@until_not_overtaken
def _complete(
    bucket: Bucket,
    key: str,
    upload_id: uuid.UUID,
    chosen: Sequence[tuple[int, str]],
    condition: Condition,
    seal: Seal,
) -> Completed:
    Quota.lock(bucket.owner_id)  # The quota and the bucket are locked before the upload, as everywhere (RACES 47).
    bucket.lock()
    (upload,) = Multipart.objects.locked([upload_id]) or (_missing(upload_id.hex),)
    if upload.bucket_id != bucket.pk or upload.key != key:
        _missing(upload_id.hex)
    if upload.completed is not None:
        return Completed(**upload.completed)
    there = {part.number: part for part in Part.objects.filter(multipart=upload)}
    parts = _chosen(there, chosen)
    places = {part.number for part in parts}
    completed = Completed(sum(part.size for part in parts), _etag_of(parts), seal(upload, parts))
    place = Place(bucket, key)
    condition.require(place.found)
    phases.enter("object.complete")
    place.fill(
        Draft(completed.size, completed.etag, upload.properties, completed.checksums, parts),
        spare=[part for part in there.values() if part.number not in places],
    )
    Multipart.objects.filter(pk=upload.pk).update(completed=asdict(completed), expires_at=Clock() + _lifetime())
    phases.enter("object.completed")
    return completed


def _chosen(there: dict[int, Part], chosen: Sequence[tuple[int, str]]) -> list[Part]:
    """The parts that a client has chosen, in order; see ``complete`` for the errors."""
    numbers = [number for number, _ in chosen]
    if not numbers:
        raise InvalidRequest("an object has at least one part")
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        raise InvalidPartOrder("the numbers of the parts do not ascend")
    for number, etag in chosen:
        if number not in there or there[number].etag != etag:
            raise InvalidPart(f"part {number} is not there, or has another ETag")
    for number in numbers[:-1]:
        if there[number].size < LEAST_PART:
            raise PartTooSmall(f"part {number} has {there[number].size} bytes, fewer than {LEAST_PART}")
    return [there[number] for number in numbers]


def _etag_of(parts: Sequence[Part]) -> str:
    """The ETag of an object of parts, as S3 makes it: the MD5 of the MD5s of the parts, and the number of the parts."""
    joined = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"


def abort(bucket: Bucket, key: str, upload_id: str) -> None:
    """Drop a multipart upload with its parts.

    Raises:
        NoSuchMultipart: there is no such upload, or it is completed.
    """
    upload = find_multipart(bucket, key, upload_id)
    with transaction.atomic():
        _lock_open(upload)
        drop_multipart(upload)
    log.info("multipart.aborted", bucket=bucket.name, upload=upload_id)


def _take(multipart: Multipart, number: int, part: Part) -> None:
    """Give a part its number in a multipart upload, whose row is locked; delete the part that had the number."""
    old = list(Part.objects.filter(multipart=multipart, number=number))
    Content.objects.locked({part.content_id, *(former.content_id for former in old)})
    chunk_ids = Part.objects.remove([former.pk for former in old])
    mine = Part.objects.pending().filter(pk=part.pk)
    if not mine.update(multipart=multipart, number=number, modified_at=Now()):
        raise ClusterUnavailable(GONE)
    part.refresh_from_db(fields=["multipart", "number", "modified_at"])
    multipart.put_off(_lifetime())
    Chunk.objects.condemn_unreferenced(chunk_ids, factor=max((one.replication_factor for one in old), default=0))


def _contents_at(multipart: Multipart, number: int) -> list[int]:
    return list(Part.objects.filter(multipart=multipart, number=number).values_list("content_id", flat=True))


def _lock_open(multipart: Multipart) -> None:
    """
    Raises:
        NoSuchMultipart: the upload was completed or aborted.
    """
    locked = Multipart.objects.locked([multipart.pk])
    if not locked or locked[0].completed is not None:
        _missing(multipart.upload_id)


def _require_number(number: int) -> None:
    if not 1 <= number <= MOST_PARTS:
        message = f"the number of a part is 1 to {MOST_PARTS}"
        raise InvalidRequest(message, {"partNumber": [message]})


def _lifetime() -> timedelta:
    return timedelta(seconds=configuration().multipart_upload_expires)


def _read_id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(hex=text)
    except ValueError:
        _missing(text)


def _missing(upload_id: str) -> NoReturn:
    raise NoSuchMultipart(f"no multipart upload {upload_id}")
