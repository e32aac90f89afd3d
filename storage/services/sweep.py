"""Find stale leases, abandoned uploads, forgotten staged files and short contents, even if every wake-up was lost.

The sweep finds everything from the state of PostgreSQL and of the staging folder, so no lost message matters.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from storage.cluster.topology import Topology
from storage.conf import configuration
from storage.jobs import wakeups
from storage.jobs.stillness import Stillness
from storage.models import (
    Activity,
    Chunk,
    Cluster,
    Content,
    Deletion,
    Generation,
    Job,
    Link,
    Multipart,
    Node,
    Part,
    Remains,
    Resumable,
    Tally,
    Upload,
)
from storage.models.clock import Clock
from storage.models.dropping import drop_multipart, drop_pending
from storage.staging import files

log = structlog.get_logger(__name__)

SLACK = 10.0  # Seconds in addition to the stall timeout, for the time between two heartbeats and for a busy machine.
UNRECORDED = 60.0  # A staged file may be without its row for this many seconds: far longer than a commit may take.
AHEAD = timedelta(seconds=10)  # Times that are further ahead were recorded before PostgreSQL's clock was set back.
PENDING_KEPT = 300.0  # A stored body may be without its place for this many seconds: far longer than its request lives.
FAILED_UPLOAD_KEPT = timedelta(days=7)
TERMINAL_JOBS_KEPT = timedelta(days=7)
AUDITS_KEPT = timedelta(days=400)
LAST_KEPT = (Job.Kind.CENSUS, Job.Kind.TRACE)  # The last job of each of these kinds is kept, however old it is.
GENERATIONS_KEPT = timedelta(days=400)  # After a longer absence, a volume is taken for another database's.
HEAL_CONTENTS = 100
LOOK_AGAIN_CONTENTS = 500  # At most this many lost contents are looked at in one round, and others in the next round.
TRIED_RECENTLY = timedelta(seconds=60)

_beats: Stillness[UUID, datetime] = Stillness()
_expiries: Stillness[UUID, datetime] = Stillness()
_expiries_of_multiparts: Stillness[UUID, datetime] = Stillness()
_unrecorded: Stillness[UUID, None] = Stillness()
_pending: Stillness[int, None] = Stillness()


def sweep() -> None:
    """Make one round. Every part of a round is idempotent and may be interrupted anywhere."""
    requeued = Job.objects.requeue_stale()
    if requeued:
        log.warning("jobs.requeued", count=requeued)
    _restart_times_in_the_future()
    _drop_abandoned_uploads()
    _drop_expired_uploads()
    _drop_expired_multiparts()
    _drop_pending_parts()
    _remove_forgotten_staging()
    _look_again_at_lost_contents()
    _heal_short_contents()
    Link.objects.delete_expired()
    Session.objects.filter(expire_date__lt=Now()).delete()
    Deletion.objects.delete_expired(configuration().reclaim_grace)
    Remains.objects.delete_expired(configuration().reclaim_grace)
    Tally.fold()
    Activity.forget(timedelta(days=configuration().audit_log_days))
    _forget_ended_jobs()
    Generation.forget(GENERATIONS_KEPT)
    for queue in Job.Queue:
        if Job.objects.queued(queue).exists():
            wakeups.wake(queue)


def _restart_times_in_the_future() -> None:
    """Set start times that lie in the future to now.

    PostgreSQL's clock was set back after these times were recorded.
    """
    Node.objects.filter(online_changed_at__gt=Clock() + AHEAD).update(online_changed_at=Clock())
    Cluster.objects.filter(gathered_since__gt=Clock() + AHEAD).update(gathered_since=Clock())
    Chunk.objects.restart_grace(AHEAD)


def _forget_ended_jobs() -> None:
    """Delete jobs that ended long ago.

    The condition on ``created_at`` is redundant, because a job ends after it was created, but the index needs it.
    ``Now()`` is constant during the query. With ``Clock()``, which advances, PostgreSQL would not use the index.
    """
    since = Now() - TERMINAL_JOBS_KEPT
    ended = Job.objects.filter(created_at__lt=since, finished_at__lt=since, state__in=Job.TERMINAL)
    last = [job.pk for kind in LAST_KEPT if (job := Job.objects.last_of(kind))]
    kept = Q(kind=Job.Kind.AUDIT, finished_at__gt=Now() - AUDITS_KEPT) | Q(pk__in=last)
    # The segments of an upload are needed until the upload is stored, however slowly it arrives.
    ended.filter(segment=None).exclude(kept).delete()


def _drop_abandoned_uploads() -> None:
    """Drop uploads whose API process is gone, and uploads whose jobs failed longer than ``FAILED_UPLOAD_KEPT`` ago."""
    receiving = Upload.objects.filter(state=Upload.State.RECEIVING)
    beats = dict(receiving.values_list("id", "heartbeat_at"))
    silent = receiving.filter(id__in=_beats.unchanged(beats, 2 * configuration().stall_timeout + SLACK))
    ended = Job.objects.filter(state__in=(Job.State.FAILED, Job.State.CANCELLED), upload__isnull=False)
    expired = ended.filter(finished_at__lt=Clock() - FAILED_UPLOAD_KEPT).values("upload")
    for upload in (*silent, *Upload.objects.filter(id__in=expired)):
        if _drop(upload):
            files.discard(upload.pk)
            log.warning("upload.dropped", upload=str(upload.pk))


def _drop_expired_uploads() -> None:
    """Drop resumable uploads to which no bytes have come for RESUMABLE_UPLOAD_EXPIRES.

    An expired upload is dropped only after it was watched, and did not change, for longer than a client may be silent.
    So an upload whose bytes arrive is not dropped when PostgreSQL's clock jumps ahead (RACES 27).
    """
    expired = dict(Resumable.objects.expired().values_list("pk", "expires_at"))
    for upload_id in _expiries.unchanged(expired, 2 * configuration().stall_timeout + SLACK):
        with transaction.atomic():
            mine = Resumable.objects.expired().locked([upload_id])
            dropped = [upload_id for upload in mine if upload.drop()]
        for dropped_id in dropped:
            files.discard(dropped_id)
            log.warning("upload.expired", upload=str(dropped_id))


def _drop_expired_multiparts() -> None:
    """Drop multipart uploads, also completed ones, to which nothing has happened for MULTIPART_UPLOAD_EXPIRES."""
    expired = dict(Multipart.objects.filter(expires_at__lte=Clock()).values_list("pk", "expires_at"))
    for upload_id in _expiries_of_multiparts.unchanged(expired, 2 * configuration().stall_timeout + SLACK):
        with transaction.atomic():
            for upload in Multipart.objects.filter(expires_at__lte=Clock()).locked([upload_id]):
                drop_multipart(upload)
                log.warning("multipart.expired", upload=upload.upload_id, completed=upload.completed is not None)


def _drop_pending_parts() -> None:
    """Drop stored bodies that belong to nothing: the process that was about to give them their places is gone.

    A body whose upload has not ended is left to that upload.
    """
    pending = Part.objects.pending().filter(uploads=None).values_list("pk", flat=True)
    if part_ids := _pending.unchanged(dict.fromkeys(pending), PENDING_KEPT):
        drop_pending(list(part_ids))
        log.warning("parts.dropped", parts=len(part_ids))


@transaction.atomic
def _drop(upload: Upload) -> bool:
    """Drop an upload, together with its file if only this upload could have made the file ready.

    If the upload's state has changed, the upload is still alive: it is not dropped, and this function returns False.
    """
    content = Content.objects.select_for_update(of=("self",)).filter(uploads=upload.pk).first()
    locked = Upload.objects.select_for_update().filter(pk=upload.pk, state=upload.state).first()
    if locked is None:
        return False
    chunk_ids = locked.release()
    if content is not None:
        chunk_ids |= locked.give_up(content)
    Chunk.objects.condemn_unreferenced(chunk_ids)
    return True


def _remove_forgotten_staging() -> None:
    """Remove staged files without a row. A new file is spared for a while: the commit of its row may be under way."""
    staged = files.present()
    upload_ids = set(Upload.objects.values_list("id", flat=True)) if staged else set()
    for upload_id in _unrecorded.unchanged(dict.fromkeys(staged - upload_ids), UNRECORDED):
        files.discard(upload_id)
        log.info("staging.removed", upload=str(upload_id))


def _look_again_at_lost_contents() -> None:
    """Look again at contents that were found unretrievable, after longer and longer pauses: a copy may be back."""
    if Content.objects.look_again_at_lost(LOOK_AGAIN_CONTENTS):
        Job.request(Job.Kind.REFRESH_HEALTH, "all")


def _heal_short_contents() -> None:
    """Queue the repair of contents below their target.

    Every round finds short contents by their summaries, and does not depend on earlier jobs (RACES 18). A few contents
    are mended one by one. Many contents, as after the loss of a node, are mended by one job, which begins with the
    chunks that have the fewest copies. While a node has been away for less than REPAIR_DELAY, only contents with a
    chunk that is down to one copy are mended.
    """
    epoch = Cluster.load().topology_epoch
    short = Content.objects.filter(
        state=Content.State.READY,
        retrievable=True,
        health_epoch=epoch,
        chunk_count__gt=0,
        min_replication__lt=F("target"),
    ).order_by("min_replication", "pk")
    counting = sum(member.counts for member in Topology.load().members)
    if _node_went_just_now():
        short = short.filter(min_replication__lte=1)
    contents = list(short.filter(min_replication__lt=counting)[: HEAL_CONTENTS + 1])
    if len(contents) > HEAL_CONTENTS:
        if not _recently_tried(Job.Kind.REPAIR_ALL, "all"):
            Job.ensure(Job.Kind.REPAIR_ALL, "all")
        return
    for content in contents:
        subject = f"content {content.pk}"
        if not _recently_tried(Job.Kind.REBALANCE, subject):
            Job.request(Job.Kind.REBALANCE, subject, file_hash=content.file_hash, size=content.size)


def _node_went_just_now() -> bool:
    """True if a node went offline less than REPAIR_DELAY ago.

    A node that went offline just now may only be restarting, so its copies are not lost.
    """
    since = Clock() - timedelta(seconds=configuration().repair_delay)
    return Node.objects.filter(state=Node.State.ACTIVE, online=False, online_changed_at__gt=since).exists()


def _recently_tried(kind: str, subject: str) -> bool:
    recent = Job.objects.filter(kind=kind, subject=subject)
    lately = Q(finished_at__range=(Clock() - TRIED_RECENTLY, Clock()))
    return recent.filter(~Q(state__in=Job.TERMINAL) | lately).exists()
