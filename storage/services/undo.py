"""Undo the deletion of files, as long as no byte of theirs has been freed (RACES 52)."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now

from storage.cluster.topology import Topology
from storage.conf import configuration
from storage.exceptions import ContentNotReady, ContentUnavailable, DeletionFinal, NoSuchDeletion
from storage.models import Activity, Content, Deletion, File, ManifestEntry, Quota, Remains, Usage
from storage.models.clock import Clock
from storage.replicas.finding import health_of, holders_of

log = structlog.get_logger(__name__)


@transaction.atomic
def undo(owner: User, deletion_id: str) -> list[File]:
    """Make the files of a deletion again, and their content if it went with them. A deletion can be undone once.

    A restored file has its former row id and its former time, so lists show it where it was. The share links of the
    file do not come back. If the owner has stored the same bytes under the same name since, that newer file stays, with
    the larger one of the two factors.

    Returns:
        The files, the newest first.

    Raises:
        NoSuchDeletion: the owner has no such deletion, or it was undone already.
        DeletionFinal: the time for undoing is over, or bytes have been freed.
        ContentNotReady: somebody is storing the same bytes just now.
        ContentUnavailable: no node that answers has a copy of some chunk.
        ByteQuotaExceeded, FileQuotaExceeded: the files do not fit into the owner's quota any more.
    """
    grace = configuration().reclaim_grace
    deletion = _locked(owner, deletion_id)
    if not Deletion.objects.filter(pk=deletion.pk, deleted_at__gt=Clock() - timedelta(seconds=grace)).exists():
        raise DeletionFinal(f"a deletion can be undone for {grace} seconds")
    quota = Quota.lock(owner.pk)
    used = Usage.of(owner.pk)
    content = _content(deletion.file_hash, max(entry["factor"] for entry in deletion.files))
    names = {entry["name"]: entry for entry in deletion.files}
    present = File.objects.filter(owner=owner, content=content, name__in=names)
    for file in present:
        _raise_factor(file, names.pop(file.name)["factor"])
    for number, entry in enumerate(names.values()):
        if quota is not None:
            quota.require(Usage(used.files + number, used.bytes + number * content.size), content.size)
        _restore(owner, content, entry)
    found = File.objects.filter(owner=owner, content=content, name__in=[entry["name"] for entry in deletion.files])
    files = list(found.select_related("content", "owner").order_by("-id"))
    Activity.resume(files)
    Activity.record_of(Activity.Action.UNDO, files)
    deletion.delete()
    log.info("file.restored", file_hash=content.file_hash, files=len(files))
    return files


def _locked(owner: User, deletion_id: str) -> Deletion:
    """Lock a deletion of the owner: of two requests at once, the second finds the deletion gone."""
    try:
        key = uuid.UUID(deletion_id)
    except ValueError:
        raise NoSuchDeletion(f"no deletion {deletion_id}") from None
    deletion = Deletion.objects.select_for_update().filter(pk=key, owner=owner).first()
    if deletion is None:
        raise NoSuchDeletion(f"no deletion {deletion_id}")
    return deletion


def _content(file_hash: str, factor: int) -> Content:
    """Lock the content of this hash, or make it again from its remains.

    A content is locked before its remains, as in a deletion. While this transaction holds the lock of the content, no
    other transaction changes the content's remains; only a sweep may delete the remains.

    Raises:
        DeletionFinal: there are no remains, or a chunk has been freed.
        ContentNotReady: the content is being stored: whether that succeeds is not known yet.
        ContentUnavailable: as for ``_revive``.
    """
    remains = Remains.objects.filter(file_hash=file_hash).first()
    if remains is not None:
        # An upload of the same bytes may insert the content at the same time. One of the two transactions waits for the
        # other.
        Content.objects.bulk_create([Content(**remains.content_fields())], ignore_conflicts=True)
    content = Content.objects.select_for_update().filter(file_hash=file_hash).first()
    if content is None:
        raise DeletionFinal("the bytes of the file have been freed")
    if content.state != Content.State.READY:
        if remains is None or content.files.exists() or content.uploads.exists():
            raise ContentNotReady("the same bytes are being stored; try again when that is done")
        _revive(content, remains, factor)
    return content


def _revive(content: Content, remains: Remains, factor: int) -> None:
    """Give a content that was inserted just now the manifest that it had.

    The volumes are asked under the locks of the chunks. A copy that is found under these locks stays, because each
    removal looks for references under the same locks. The grace alone proves nothing: a pass of reclaim that planned
    earlier, or with another grace, may have removed copies.

    Raises:
        DeletionFinal: a chunk has been freed.
        ContentUnavailable: no node that answers has a copy of some chunk.
    """
    unchanged = Remains.objects.select_for_update().filter(pk=remains.pk, removed_at=remains.removed_at)
    manifest = remains.lock_chunks() if unchanged.exists() else None
    if manifest is None:
        raise DeletionFinal("the bytes of the file have been freed")
    topology = Topology.load()
    health = health_of(topology, manifest, holders_of(topology, manifest), factor)
    if not health.retrievable:
        raise ContentUnavailable("no node that answers has a copy of some part of the file")
    remains.take_back()
    ManifestEntry.record([(content.pk, position, chunk) for position, chunk in enumerate(remains.chunk_ids)])
    Content.objects.become_ready({content.pk: health})
    remains.delete()
    content.refresh_from_db()


def _raise_factor(file: File, factor: int) -> None:
    larger = File.objects.filter(pk=file.pk, replication_factor__lt=factor)
    larger.update(replication_factor=factor, modified_at=Now())


def _restore(owner: User, content: Content, entry: dict[str, Any]) -> None:
    """Make a file again. Row ids are not used twice, so the former id of the file is free."""
    File.objects.create(
        pk=entry["id"],
        owner=owner,
        content=content,
        name=entry["name"],
        size=content.size,
        replication_factor=entry["factor"],
    )
    File.objects.filter(pk=entry["id"]).update(created_at=datetime.fromisoformat(entry["created_at"]))
