"""Share links: addresses under which one file can be downloaded without a key, for a time."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from django.contrib.auth.models import User
from django.core.signing import BadSignature, Signer
from django.db import transaction
from django.db.models import F
from django.db.models.fields.tuple_lookups import Tuple, TupleLessThan

from storage.exceptions import NoSuchFile, NoSuchLink, TooManyLinks
from storage.models import NOBODY, Activity, File, Link, clock

log = structlog.get_logger(__name__)

MOST_LINKS = 100  # One file has at most this many links.


def share(file: File, seconds: int) -> Link:
    """Make a link to a file. The link expires after ``seconds`` seconds.

    Raises:
        NoSuchFile: the file has been deleted since it was read.
        TooManyLinks: the file has ``MOST_LINKS`` links.
    """
    with transaction.atomic():
        # The lock keeps the file until the link is committed. A later deletion or merge of the file also finds the
        # link. Links to the same file are made one after the other, so the limit is exact.
        if not File.objects.select_for_update().filter(pk=file.pk).exists():
            raise NoSuchFile(f"no file {file.content.file_hash}")
        if Link.objects.good().filter(file=file).count() >= MOST_LINKS:
            raise TooManyLinks(f"a file has at most {MOST_LINKS} links; revoke some")
        link = Link.objects.create(file=file, expires_at=clock.now() + timedelta(seconds=seconds))
        Activity.record_of(Activity.Action.SHARE, [file], detail=str(link.pk))
    log.info("link.created", link=str(link.pk), file_hash=file.content.file_hash, seconds=seconds)
    return link


def links_to(files: Sequence[File]) -> list[Link]:
    """The links to these files that have not expired, the oldest one first."""
    return list(Link.objects.good().filter(file__in=files).select_related("file"))


def links_of(owner: User, *, limit: int, after: tuple[datetime, uuid.UUID] | None = None) -> list[Link]:
    """The links to the owner's files that have not expired, the newest first: one page of them.

    Args:
        owner: the owner of the files.
        limit: the largest number of links.
        after: the last link of the page before: the time at which it was made, and its id; None for the first page.
    """
    links = Link.objects.good().filter(file__owner=owner).select_related("file__content").order_by("-created_at", "-id")
    if after is not None:
        links = links.filter(TupleLessThan(Tuple(F("created_at"), F("id")), after))
    return list(links[:limit])


def revoke(link_id: str, *, owner: User, files: Sequence[File] | None = None) -> None:
    """Revoke a link: its address opens nothing any more.

    Args:
        link_id: the id of the link.
        owner: the owner of the file that the link leads to.
        files: the link must lead to one of these files; None if it may lead to any file of the owner.

    Raises:
        NoSuchLink: no link of this id leads to one of the files.
    """
    links = Link.objects.filter(file__owner=owner)
    if files is not None:
        links = links.filter(file__in=files)
    with transaction.atomic():
        try:
            link = links.select_related("file__content").select_for_update(of=("self",)).get(pk=uuid.UUID(link_id))
        except (ValueError, Link.DoesNotExist):
            raise NoSuchLink(f"no link {link_id}") from None
        link.delete()
        Activity.record_of(Activity.Action.REVOKE_LINK, [link.file], detail=link_id)
    log.info("link.revoked", link=link_id)


def token_of(link: Link) -> str:
    """The secret part of a link's address: the link's id, signed with SECRET_KEY.

    The signature of an invented token is wrong, so the token is refused without a query.
    """
    return _signer().sign(link.pk.hex)


def file_behind(token: str) -> File:
    """The file that a link's token opens.

    Raises:
        NoSuchLink: this service did not make the token, or its link has expired or was revoked.
    """
    try:
        link_id = uuid.UUID(_signer().unsign(token))
    except (BadSignature, ValueError):
        raise NoSuchLink("this link does not exist, has expired, or was revoked") from None
    link = Link.objects.good().select_related("file__content", "file__owner").filter(pk=link_id).first()
    if link is None or not (link.file.owner.is_active or link.file.owner.username == NOBODY):
        raise NoSuchLink("this link does not exist, has expired, or was revoked")
    return link.file


def _signer() -> Signer:
    return Signer(salt="storage.links", sep=".")  # A dot needs no escape in a URL.
