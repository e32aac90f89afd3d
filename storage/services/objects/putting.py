"""Give a stored body its key; change the tags of an object."""

from __future__ import annotations

from contextlib import suppress

import structlog
from django.db import transaction

from storage import phases
from storage.exceptions import ClusterUnavailable, ContentNotReady, NoSuchObject
from storage.models import Bucket, Content, Object, Part, Properties
from storage.models.dropping import drop_pending
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
from storage.staging import files

log = structlog.get_logger(__name__)


def put(
    bucket: Bucket,
    key: str,
    part_id: int,
    properties: Properties,
    *,
    checksums: dict[str, str] | None = None,
    condition: Condition = ALWAYS,
) -> Object:
    """Make a stored body the object at a key. If the call fails, the body is dropped.

    Args:
        bucket: the bucket.
        key: the key.
        part_id: the pending part, whose body has been stored.
        properties: what the client says about the object.
        checksums: the object's checksums.
        condition: what must be at the key before the change.

    Raises:
        InvalidKey, InvalidRequest: the key or a property has characters that cannot be stored.
        NoSuchBucket: the bucket has been deleted.
        PreconditionFailed, NoSuchObject: see ``Condition.require``.
        FileQuotaExceeded: the owner or the bucket has no room for another object.
        ClusterUnavailable: the part has been dropped, because it had been pending for too long.
        ContentNotReady: the body is not stored yet.
    """
    try:
        placed = _put(bucket, key, part_id, properties, checksums or {}, condition)
    except BaseException:
        with suppress(*UNAVAILABLE):  # If ``discard`` fails, the sweeper drops the part.
            discard(part_id)
        raise
    log.info("object.put", bucket=bucket.name, object=placed.pk, size=placed.size)
    return placed


@until_not_overtaken
def _put(
    bucket: Bucket, key: str, part_id: int, properties: Properties, checksums: dict[str, str], condition: Condition
) -> Object:
    require_text(properties)
    place = Place(bucket, key)
    condition.require(place.found)
    part = stored_part(part_id)
    phases.enter("object.put")
    placed = place.fill(Draft(part.size, part.etag, properties, checksums, [part]))
    phases.enter("object.commit")
    return placed


def stored_part(part_id: int) -> Part:
    """A pending part whose content can be read.

    Raises:
        ClusterUnavailable: the part has been dropped, or belongs to an object or a multipart upload already.
        ContentNotReady: the content of the part is not stored yet.
    """
    found = Part.find_pending(part_id)
    if found is None:
        raise ClusterUnavailable(GONE)
    part, state = found
    if state != Content.State.READY:
        raise ContentNotReady("the body is not stored yet")
    return part


def discard(part_id: int) -> None:
    """Drop a pending part, and its upload if the upload has not ended. A part that is not pending stays."""
    for upload_id in drop_pending([part_id]):
        files.discard(upload_id)


@transaction.atomic
def set_tags(bucket: Bucket, key: str, tags: dict[str, str]) -> None:
    """Replace the tags of an object.

    Raises:
        NoSuchObject: there is no object at the key.
        InvalidRequest: a tag has characters that cannot be stored.
    """
    require_key(key)
    require_text(Properties(tags=tags))
    if not Object.objects.at(bucket, key).update(tags=tags):
        raise NoSuchObject(f"no object {key}")
