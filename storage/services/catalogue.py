"""The owner's files: list, show, rename, delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now

from storage.exceptions import ContentNotReady, NoSuchFile
from storage.models import Chunk, Content, File, Job, Upload
from storage.staging import files

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Page:
    """Some of an owner's files, in the order of their ids.

    Attributes:
        total: number of all files of the owner whose content is ready.
        files: the files of this page.
        last: the id of the page's last file if there are more files after it, otherwise None.
    """

    total: int
    files: Sequence[File]
    last: int | None


def page(owner: User, *, limit: int, after: int) -> Page:
    """Read one page of the owner's files whose content is ready.

    Args:
        owner: the owner.
        limit: number of files on the page at most.
        after: the id of the last file of the page before; 0 for the first page.
    """
    ready = File.objects.filter(owner=owner, content__state=Content.State.READY)
    found = list(ready.filter(id__gt=after).order_by("id").select_related("content")[: limit + 1])
    last = found[limit - 1].pk if len(found) > limit else None
    return Page(File.count_ready(owner), found[:limit], last)


def find(owner: User, file_hash: str, *, ready: bool = True) -> File:
    """Find the owner's file on a content.

    Raises:
        NoSuchFile: the owner has no such file.
        ContentNotReady: ``ready`` is True, and the ingest of the file has not ended.
    """
    file = File.objects.select_related("content").filter(owner=owner, content__file_hash=file_hash).first()
    if file is None:
        raise NoSuchFile(f"no file {file_hash}")
    if ready and file.content.state != Content.State.READY:
        raise ContentNotReady("the file has been accepted and is being stored")
    return file


Permit = Callable[[File], None]
"""Called with a file whose row is locked. Raises the error for the client if the client must not change the file."""


def rename(file: File, name: str, *, permit: Permit = lambda _: None) -> File:
    """Change the name that the file has when it is downloaded.

    Raises:
        NoSuchFile: the file has been deleted since it was read.
    """
    with transaction.atomic():
        locked = File.objects.select_for_update(of=("self",)).select_related("content").filter(pk=file.pk).first()
        if locked is None:
            raise NoSuchFile(f"no file {file.content.file_hash}")
        permit(locked)
        File.objects.filter(pk=file.pk).update(name=name, modified_at=Now())
        locked.refresh_from_db(fields=["name", "modified_at"])
    log.info("file.renamed", file_hash=file.content.file_hash)
    return locked


def delete(file: File, *, permit: Permit = lambda _: None) -> None:
    """Delete a file. With the last file of a content, the content is deleted too, and reclaim frees its bytes.

    Raises:
        NoSuchFile: the file has been deleted since it was read.
    """
    file_hash = file.content.file_hash
    with transaction.atomic():
        content = Content.objects.select_for_update().filter(pk=file.content_id).first()
        locked = File.objects.select_for_update(of=("self",)).select_related("content").filter(pk=file.pk).first()
        if content is None or locked is None:
            raise NoSuchFile(f"no file {file_hash}")
        permit(locked)
        # The owner's unfinished uploads of this content are dropped too, in the order in which workers lock uploads.
        uploads = list(Upload.objects.filter(content=content, owner_id=file.owner_id).order_by("id"))
        Job.cancel(Job.objects.filter(upload__in=uploads).values_list("id", flat=True))
        chunk_ids = set[int]().union(*(upload.release() for upload in uploads), file.remove())
        Chunk.objects.condemn_unreferenced(chunk_ids, factor=content.target)
    for upload in uploads:
        files.discard(upload.pk)
    log.info("file.deleted", file_hash=file_hash)
