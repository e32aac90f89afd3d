"""Who did what, and when: acts have rows of their own, and uploads are read from the rows of their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db.models import QuerySet

from storage.conf import configuration
from storage.models import Activity, Content, File, clock

Place = tuple[tuple[datetime, int] | None, int | None]
"""Where a page ends: the time and the row id of the last act so far, and the row id of the last file so far.

None stands in the place of an act or a file if there was none so far.
"""


@dataclass(frozen=True)
class Act:
    """Something that was done.

    Attributes:
        at: when.
        actor: the name of the user who did it; empty at the command line.
        means: the key, or the door.
        action: what was done, a value of ``Activity.Action``.
        subject: the thing it was done to.
        file_hash: the content, if the thing is a file.
        owner: the name of the thing's owner; None for the cluster.
        detail: more about the act.
    """

    at: datetime
    actor: str
    means: str
    action: str
    subject: str
    file_hash: str | None
    owner: str | None
    detail: str


def page(
    owner: User | None, *, limit: int, action: str | None = None, after: Place = (None, None)
) -> tuple[Sequence[Act], Place | None]:
    """The newest acts after the place ``after``, and the place where this page ends, or None if no act follows.

    Args:
        owner: the owner of the things; None for everybody's things and for the cluster.
        limit: the largest number of acts.
        action: acts of this kind only, a value of ``Activity.Action``; None for all.
        after: where the page before ended.
    """
    since = clock.now() - timedelta(days=configuration().audit_log_days)
    rows = list(_acts(owner, action, after[0])[: limit + 1])
    files = list(_files(owner, after[1])[: limit + 1]) if action in (None, Activity.Action.UPLOAD) else []
    # The files are in the order of their ids, so all files behind the first one that is too old are too old as well.
    # With a condition on the time, PostgreSQL would read all these older files and return none of them.
    recent = next((place for place, file in enumerate(files) if file.created_at < since), len(files))
    del files[recent:]
    chosen: list[Act] = []
    acts, last_file = after
    while len(chosen) < limit and (rows or files):
        if files and (not rows or files[0].created_at >= rows[0].at):
            file = files.pop(0)
            chosen.append(_of_file(file))
            last_file = file.pk
        else:
            row = rows.pop(0)
            chosen.append(_of_row(row))
            acts = row.at, row.pk
    return chosen, (acts, last_file) if rows or files else None


def _acts(owner: User | None, action: str | None, after: tuple[datetime, int] | None) -> QuerySet[Activity]:
    rows = Activity.objects.select_related("owner").newest_first(after)
    rows = rows if owner is None else rows.filter(owner=owner)
    return rows if action is None else rows.filter(action=action)


def _files(owner: User | None, after: int | None) -> QuerySet[File]:
    files = File.objects.select_related("content", "owner").filter(content__state=Content.State.READY).order_by("-id")
    files = files if owner is None else files.filter(owner=owner)
    return files if after is None else files.filter(pk__lt=after)


def _of_row(row: Activity) -> Act:
    owner = row.owner.username if row.owner else None
    return Act(row.at, row.actor, row.means, row.action, row.subject, row.file_hash, owner, row.detail)


def _of_file(file: File) -> Act:
    owner = file.owner.username
    content: Content = file.content
    return Act(file.created_at, owner, "", Activity.Action.UPLOAD, file.name, content.file_hash, owner, "")
