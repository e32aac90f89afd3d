"""The owner's files: list, show, rename, delete."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now

from storage import models
from storage.exceptions import ContentNotReady, NoSuchFile
from storage.models import (
    UPLOADED,
    Activity,
    Chunk,
    Content,
    Deletion,
    File,
    FileQuerySet,
    Holding,
    Job,
    Link,
    Position,
    Sort,
    Upload,
)
from storage.models.names import folder_of
from storage.staging import files as staging

log = structlog.get_logger(__name__)

GIVEN_AT_ONCE = 1000  # The largest number of files that change their owner in one transaction.


@dataclass(frozen=True)
class Page:
    """Some of an owner's files, in the order that was asked for.

    Attributes:
        total: the number of all files of the owner whose content is ready. A filter by name does not change ``total``.
        files: the files of this page.
        last: the position of the page's last file if there are more files after it, otherwise None.
    """

    total: int
    files: Sequence[File]
    last: Position | None


@dataclass(frozen=True)
class Level:
    """Some of the folders and files of one folder: first the folders in it, then its own files.

    Attributes:
        total: the number of all files of the owner whose content is ready, wherever they are.
        folders: the folders of this page, with their whole paths.
        files: the files of this page.
        last: the position of the page's last file, or its last folder, if more comes after it; otherwise None.
    """

    total: int
    folders: Sequence[str]
    files: Sequence[File]
    last: Position | str | None


def page(
    owner: User,
    *,
    limit: int,
    sort: Sort = UPLOADED,
    after: Position | None = None,
    prefix: str = "",
    part: str = "",
) -> Page:
    """Read one page of the owner's files whose content is ready.

    Args:
        owner: the owner.
        limit: number of files on the page at most.
        sort: the order of the files.
        after: the position of the last file of the page before; None for the first page.
        prefix: the beginning of the names; case matters.
        part: a part of the names; case does not matter.
    """
    ready = _ready(owner, prefix)
    if part:
        ready = ready.filter(name__icontains=part)
    files = list(ready.sorted(sort, after).select_related("content")[: limit + 1])
    last = sort.position(files[limit - 1]) if len(files) > limit else None
    return Page(File.count_ready(owner), files[:limit], last)


def level(
    owner: User, *, limit: int, sort: Sort = UPLOADED, after: Position | str | None = None, prefix: str = ""
) -> Level:
    """Read one page of a folder: first the folders in it, by name, and then its own files whose content is ready.

    Args:
        owner: the owner.
        limit: number of folders and files on the page at most.
        sort: the order of the files.
        after: the position of the last file, or the last folder, of the page before; None for the first page.
        prefix: the folder with a slash at its end, or an empty string, perhaps followed by the beginning of the names
            that are wanted.
    """
    passed = after if isinstance(after, str) else ""
    folders = [] if isinstance(after, tuple) else models.folders(owner.pk, prefix, after=passed, most=limit + 1)
    rest = max(0, limit - len(folders))
    position = after if isinstance(after, tuple) else None
    ready = _ready(owner, prefix).in_folder(folder_of(prefix), sort, position).select_related("content")
    files = list(ready[: rest + 1]) if len(folders) <= limit else []
    last: Position | str | None = None
    if len(folders) > limit or (files and not rest):
        last = folders[limit - 1]
    elif len(files) > rest:
        last = sort.position(files[rest - 1])
    return Level(File.count_ready(owner), folders[:limit], files[:rest], last)


def _ready(owner: User, prefix: str) -> FileQuerySet:
    ready = File.objects.filter(owner=owner, content__state=Content.State.READY)
    return ready.beginning_with(prefix) if prefix else ready


def find(owner: User, file_hash: str, name: str | None = None, *, ready: bool = True) -> File:
    """Find the owner's newest file on a content, or the file of this name.

    Raises:
        NoSuchFile: the owner has no such file.
        ContentNotReady: ``ready`` is True, and the ingest of the file has not ended.
    """
    return find_all(owner, file_hash, name, ready=ready)[0]


def find_all(owner: User, file_hash: str, name: str | None = None, *, ready: bool = True) -> list[File]:
    """Find the owner's files on a content, the newest file first: all of them, or the file of this name.

    Raises:
        NoSuchFile: the owner has no such file.
        ContentNotReady: ``ready`` is True, and the ingest of the content has not ended.
    """
    rows = File.objects.select_related("content").filter(owner=owner, content__file_hash=file_hash).order_by("-id")
    files = list(rows if name is None else rows.filter(name=name))
    if not files:
        raise NoSuchFile(f"no file {file_hash}" if name is None else f"no file {file_hash} of this name")
    if ready and files[0].content.state != Content.State.READY:
        raise ContentNotReady("the file has been accepted and is being stored")
    return files


def names_of(owner: User, file_hashes: Collection[str]) -> dict[str, str]:
    """Hash of a content → the name of the owner's newest file on it. Contents without such a file are left out."""
    files = File.objects.filter(owner=owner, content__file_hash__in=file_hashes).order_by("id")
    return dict(files.values_list("content__file_hash", "name"))


def find_holding(owner: User, file_hash: str) -> Holding:
    """Find a content that the owner has, as a file or in an object.

    Raises:
        NoSuchFile: the owner does not have the content.
        ContentNotReady: the ingest of the content has not ended.
    """
    held = Holding.find(owner.pk, file_hash)
    if held is None:
        raise NoSuchFile(f"no file {file_hash}")
    if held.content.state != Content.State.READY:
        raise ContentNotReady("the file has been accepted and is being stored")
    return held


Permit = Callable[[Sequence[File]], None]
"""A function of files whose rows are locked, which raises an error if the client must not change these files."""


def rename(*files: File, name: str, permit: Permit = lambda _: None) -> File:
    """Give another name to files of one owner and content. Files that then have the same name become one file.

    If a file already has the new name, that file is kept; otherwise the newest of the given files is kept. The kept
    file gets the largest replication factor of all these files.

    Raises:
        NoSuchFile: all of the files have been deleted since they were read.
    """
    with transaction.atomic():
        content, locked = _locked(files)
        permit(locked)
        namesake = File.objects.filter(owner=locked[0].owner_id, content=content, name=name).first()
        kept = namesake or locked[0]
        if others := [file for file in locked if file.pk != kept.pk]:
            _merge(kept, others)
        Activity.record_of(Activity.Action.RENAME, locked, detail=name)
        File.objects.filter(pk=kept.pk).update(name=name, modified_at=Now())
        kept.refresh_from_db(fields=["name", "modified_at"])
    log.info("file.renamed", file_hash=content.file_hash, files=len(locked))
    return kept


def delete(*files: File, permit: Permit = lambda _: None) -> Deletion | None:
    """Delete files of one owner and content.

    With the last file of a content, the content is deleted too, and reclaim frees its bytes.

    Returns:
        The deletion, which can be undone for a time. None if the files were not stored yet.

    Raises:
        NoSuchFile: all of the files have been deleted since they were read.
    """
    with transaction.atomic():
        content, locked = _locked(files)
        permit(locked)
        Activity.outlive(locked)
        Activity.record_of(Activity.Action.DELETE, locked)
        # The unfinished uploads of these files are dropped too, in the order in which workers lock uploads.
        uploads = list(Upload.objects.filter(file__in=locked).order_by("id"))
        Job.cancel(Job.objects.filter(upload__in=uploads).values_list("id", flat=True))
        deletion = Deletion.record(locked) if content.state == Content.State.READY else None
        chunk_ids = set[int]().union(*(upload.release() for upload in uploads), *(file.remove() for file in locked))
        Chunk.objects.condemn_unreferenced(chunk_ids, factor=content.target)
    for upload in uploads:
        staging.discard(upload.pk)
    log.info("file.deleted", file_hash=content.file_hash, files=len(locked))
    return deletion


def give_all(giver: User, receiver: User) -> int:
    """Make all files of one user the files of another user; return their number.

    If the receiver already has a file of the same name and content, the two files become one. The files are given in
    batches: after a call that was interrupted, another call gives the files that are left.
    """
    count = 0
    while batch := list(File.objects.filter(owner=giver).order_by("id")[:GIVEN_AT_ONCE]):
        with transaction.atomic():
            Content.objects.locked(file.content_id for file in batch)
            count += _give([file.pk for file in batch], giver, receiver)
    log.info("files.given", giver=giver.pk, receiver=receiver.pk, files=count)
    return count


def _give(file_ids: Sequence[int], giver: User, receiver: User) -> int:
    mine = File.objects.select_for_update(of=("self",)).select_related("content", "owner")
    files = list(mine.filter(pk__in=file_ids, owner=giver))
    present = File.objects.filter(owner=receiver, content__in=[file.content_id for file in files])
    namesakes = {(file.content_id, file.name): file for file in present}
    Upload.objects.filter(file__in=files).update(owner=receiver)
    Job.objects.filter(upload__file__in=files).update(owner=receiver)
    for file in files:
        if (kept := namesakes.get((file.content_id, file.name))) is not None:
            _merge(kept, [file])
    File.objects.filter(pk__in=file_ids, owner=giver).update(owner=receiver, modified_at=Now())
    return len(files)


def _merge(kept: File, others: Sequence[File]) -> None:
    """Merge ``others``, files on the same content, into ``kept``. The caller has locked all these files."""
    kept.replication_factor = max(file.replication_factor for file in (kept, *others))
    Activity.outlive(others)
    Upload.objects.filter(file__in=others).update(file=kept)
    Link.objects.filter(file__in=others).update(file=kept)
    File.objects.filter(pk__in=[file.pk for file in others]).delete()
    File.objects.filter(pk=kept.pk).update(replication_factor=kept.replication_factor, modified_at=Now())


def _locked(files: Sequence[File]) -> tuple[Content, list[File]]:
    """Lock the content of the files, and the files that still exist; return both, the newest file first.

    Raises:
        NoSuchFile: none of the files exists any more.
    """
    content = Content.objects.select_for_update().filter(pk=files[0].content_id).first()
    # Every transaction locks a content before its files, so no other transaction changes files of this content now.
    rows = File.objects.select_for_update(of=("self",)).select_related("content", "owner")
    locked = list(rows.filter(pk__in=[file.pk for file in files]).order_by("-id"))
    if content is None or not locked:
        raise NoSuchFile(f"no file {files[0].content.file_hash}")
    return content, locked
