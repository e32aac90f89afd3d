"""Copy objects. The copy refers to the contents of the source: no byte is moved."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from storage import phases
from storage.exceptions import NoSuchObject
from storage.models import Bucket, Object, Properties
from storage.services.objects.places import (
    ALWAYS,
    Condition,
    Draft,
    Place,
    require_key,
    require_text,
    until_not_overtaken,
)

log = structlog.get_logger(__name__)

Permit = Callable[[Object], None]
"""A function of the source, whose row is locked. It raises an error if the source must not be copied."""

Change = Callable[[Properties], Properties]
"""A function of the properties of the source, whose row is locked. It returns the properties of the copy."""


def copy(
    source_bucket: Bucket,
    source_key: str,
    bucket: Bucket,
    key: str,
    *,
    change: Change | None = None,
    condition: Condition = ALWAYS,
    permit: Permit = lambda _: None,
) -> Object:
    """Copy an object, also onto itself.

    Args:
        source_bucket: the bucket of the source.
        source_key: the key of the source.
        bucket: the bucket of the copy.
        key: the key of the copy.
        change: see ``Change``; None if the copy gets the properties of the source.
        condition: what must be at the key of the copy before the change.
        permit: see ``Permit``.

    Raises:
        NoSuchObject: the source does not exist; or see ``Condition.require``.
        InvalidKey, InvalidRequest, NoSuchBucket, PreconditionFailed: as for ``put``.
        ByteQuotaExceeded, FileQuotaExceeded: the owner or the bucket has no room for the copy.
    """
    placed = _copy((source_bucket, source_key), bucket, key, change, condition, permit)
    log.info("object.copied", bucket=bucket.name, object=placed.pk, size=placed.size)
    return placed


@until_not_overtaken
def _copy(
    from_place: tuple[Bucket, str],
    bucket: Bucket,
    key: str,
    change: Change | None,
    condition: Condition,
    permit: Permit,
) -> Object:
    require_key(from_place[1])
    place = Place(bucket, key, source=from_place)
    source = place.source
    if source is None:
        raise NoSuchObject(f"no object {from_place[1]}")
    permit(source)
    condition.require(place.found)
    properties = source.properties if change is None else change(source.properties)
    require_text(properties)
    phases.enter("object.copy")
    return place.fill(Draft(source.size, source.etag, properties, source.checksums, source=source))
