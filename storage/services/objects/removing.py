"""Delete objects. Contents that nothing refers to any more are deleted too, and reclaim frees their bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from django.db import transaction

from storage import phases
from storage.exceptions import InvalidKey
from storage.models import Activity, Bucket, Chunk, Content, Object, Part
from storage.services.objects.places import ALWAYS, Condition, require_key

log = structlog.get_logger(__name__)

AT_ONCE = 100  # The largest number of objects that one transaction deletes.

Permit = Callable[[Object], None]
"""A function of an object, whose row is locked. It raises an error if the client must not delete the object."""


def delete(bucket: Bucket, key: str, *, condition: Condition = ALWAYS, permit: Permit = lambda _: None) -> bool:
    """Delete the object at a key, if there is one.

    Args:
        bucket: the bucket.
        key: the key.
        condition: what must be at the key before the deletion.
        permit: see ``Permit``.

    Returns:
        True if there was an object at the key.

    Raises:
        PreconditionFailed, NoSuchObject: see ``Condition.require``.
    """
    require_key(key)
    return bool(_delete(bucket, [key], condition, permit))


def delete_many(bucket: Bucket, keys: Sequence[str]) -> None:
    """Delete the objects at some keys. Keys without an object are ignored.

    The objects are deleted in several transactions: a call that was interrupted has deleted some of the objects, and
    can be repeated.
    """
    known = sorted({key for key in keys if _is_key(key)})
    for start in range(0, len(known), AT_ONCE):
        _delete(bucket, known[start : start + AT_ONCE], ALWAYS)


@transaction.atomic
def _delete(bucket: Bucket, keys: Sequence[str], condition: Condition, permit: Permit = lambda _: None) -> int:
    locked = Object.objects.locked([(bucket, key) for key in keys])
    for key in keys:
        condition.require(locked.get((bucket.pk, key)))
    for found in locked.values():
        permit(found)
    if not locked:
        return 0
    object_ids = [found.pk for found in locked.values()]
    parts = list(Part.objects.filter(object__in=object_ids))
    Content.objects.locked({part.content_id for part in parts})
    phases.enter("object.delete")
    chunk_ids = Part.objects.remove([part.pk for part in parts])
    Object.objects.filter(pk__in=object_ids)._raw_delete("default")
    Chunk.objects.condemn_unreferenced(chunk_ids, factor=max(part.replication_factor for part in parts))
    Activity.record_of_objects(Activity.Action.DELETE, bucket, [found.key for found in locked.values()])
    phases.enter("object.deleted")
    log.info("object.deleted", bucket=bucket.name, objects=len(object_ids))
    return len(object_ids)


def _is_key(text: str) -> bool:
    try:
        require_key(text)
    except InvalidKey:
        return False
    return True
