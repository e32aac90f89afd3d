from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any, TypeAlias

from django.conf import settings
from django.db import connection, models, transaction
from django.db.models import F, Q
from django.db.models.fields.tuple_lookups import Tuple, TupleLessThan

from storage import counters, queues
from storage.counters import Outcome
from storage.exceptions import LeaseLost, TurnEnded
from storage.models import kinds
from storage.models.clock import Clock
from storage.models.content import Content
from storage.models.fields import DigestField
from storage.models.statements.prepared import Columns, rows
from storage.models.upload import Upload

LEASE = timedelta(seconds=20)
LONGEST_DELAY = timedelta(seconds=60)  # A ``not_before`` further ahead shows that PostgreSQL's clock was set back.
MAX_ATTEMPTS = 5
RETRY_DELAYS = (0, 1, 5, 15, 30)
TURN = 60.0  # After this number of seconds a long job lets other jobs of its priority go first.
LOOK_AROUND = 1.0  # Seconds between two looks for more urgent jobs.


class JobQuerySet(models.QuerySet["Job"]):
    def queued(self, queue: str) -> JobQuerySet:
        """Jobs that may be claimed now: the most urgent first, and the oldest first among equally urgent jobs."""
        due = Q(not_before__lte=Clock()) | Q(not_before__gt=Clock() + LONGEST_DELAY)
        return self.filter(due, queue=queue, state=Job.State.QUEUED).order_by("priority", "created_at", "id")

    def abandoned(self) -> JobQuerySet:
        """Running jobs whose lease is over: it has expired, or it expires later than any lease that begins now.

        In the second case the lease began before PostgreSQL's clock was set back. A worker that still runs such a job
        notices at its next commit that its lease is lost, and the job is done again.
        """
        over = Q(lease_expires_at__lt=Clock()) | Q(lease_expires_at__gt=Clock() + LEASE)
        return self.filter(over, state=Job.State.RUNNING)

    def open(self) -> JobQuerySet:
        """Jobs that have not ended."""
        return self.exclude(state__in=Job.TERMINAL)

    def before(self, created_at: datetime, job_id: uuid.UUID) -> JobQuerySet:
        """The jobs that come after a job in a list with the newest first: the older jobs."""
        return self.filter(TupleLessThan(Tuple(F("created_at"), F("id")), (created_at, job_id)))

    def last_of(self, kind: str) -> Job | None:
        """The maintenance job of this kind that succeeded last. A job that ended in the future is left out."""
        ended = self.filter(kind=kind, subject__isnull=False, state=Job.State.SUCCEEDED)
        return ended.filter(finished_at__lte=Clock()).order_by("-finished_at").first()

    def last_audits(self, node_ids: Iterable[str]) -> dict[str, datetime]:
        """Node → the time at which its last audit ended. Nodes that were never audited are left out."""
        audits = self.filter(kind=Job.Kind.AUDIT, subject__in=list(node_ids), state=Job.State.SUCCEEDED)
        return dict(audits.values_list("subject").annotate(at=models.Max("finished_at")))

    def claim(self, queue: str, *, most: int, most_bytes: int) -> list[Job]:
        """Claim queued jobs for this worker. Each job gets a new fencing token and a lease.

        Args:
            queue: the name of the queue.
            most: the largest number of jobs.
            most_bytes: the largest sum of the jobs' sizes in bytes. The first job is claimed whatever its size.

        A job that has failed before is claimed alone: a job that fails every time must not use up the attempts of other
        jobs (RACES 28).
        """
        return self._take(
            """
            WITH candidate AS (
                SELECT id, attempts, size, priority, created_at FROM storage_job
                 WHERE queue = %(queue)s AND state = 'queued'
                   AND (not_before <= clock_timestamp()
                        OR not_before > clock_timestamp() + %(longest_delay)s::float8 * interval '1 second')
                 ORDER BY priority, created_at, id LIMIT %(most)s::int FOR UPDATE SKIP LOCKED
            ), ranked AS (
                SELECT id, row_number() OVER w AS place, sum(size) OVER w AS total,
                       bool_or(attempts > 0) OVER w AS tried
                  FROM candidate WINDOW w AS (ORDER BY priority, created_at, id)
            ), chosen AS (
                SELECT id FROM ranked WHERE place = 1 OR (total <= %(most_bytes)s::bigint AND NOT tried)
            )
            """,
            {
                "queue": str(queue),
                "most": most,
                "most_bytes": most_bytes,
                "longest_delay": LONGEST_DELAY.total_seconds(),
            },
        )

    def claim_segment(self, upload: Upload) -> list[Job]:
        """Claim the job of one segment of the upload that no worker ingests; the list is empty if there is none."""
        return self._take(
            """
            WITH chosen AS (
                SELECT id FROM storage_job
                 WHERE upload_id = %(upload)s::uuid AND kind = %(kind)s
                   AND (state = 'queued' OR (state = 'running' AND (
                            lease_expires_at < clock_timestamp()
                            OR lease_expires_at > clock_timestamp() + %(lease)s::float8 * interval '1 second')))
                 ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
            )
            """,
            {"upload": upload.pk, "kind": Job.Kind.INGEST_SEGMENT.value},
        )

    def _take(self, chosen: str, parameters: dict[str, Any]) -> list[Job]:
        """Claim the jobs that the query ``chosen`` locks, and read their uploads and contents, in one statement."""
        job, upload, content = _columns()
        # A segment has checksums of its own. The checksums of a whole large body are not read for each segment.
        checksums = "CASE WHEN job.kind = 'ingest' THEN u.piece_checksums ELSE '' END"
        claims = rows(
            f"""
            {chosen}, job AS (
                UPDATE storage_job j
                   SET state = 'running', fence = j.fence + 1, attempts = j.attempts + 1, error = NULL,
                       waiting_for = '',
                       started_at = coalesce(j.started_at, clock_timestamp()), heartbeat_at = clock_timestamp(),
                       lease_expires_at = clock_timestamp() + %(lease)s::float8 * interval '1 second'
                  FROM chosen WHERE j.id = chosen.id RETURNING j.*
            )
            SELECT {job.of("job")}, {upload.of("u", piece_checksums=checksums)}, {content.of("c")}
              FROM job LEFT JOIN storage_upload u ON u.id = job.upload_id
                       LEFT JOIN storage_content c ON c.id = u.content_id,
                   set_config('synchronous_commit', 'off', true) AS lazily
             ORDER BY job.priority, job.created_at, job.id
            """,  # noqa: S608  the names of our own columns
            {**parameters, "lease": LEASE.total_seconds()},
        )
        jobs = []
        for row in map(iter, claims):
            taken_job = job.take(Job, row)
            assert taken_job is not None
            taken_job.upload = upload.take(Upload, row)
            if taken_job.upload:
                taken_job.upload.content = content.take(Content, row)
            taken_job.begin_turn()
            jobs.append(taken_job)
        return jobs

    def heartbeat(self, done: Mapping[Job, int]) -> set[uuid.UUID]:
        """Report progress of several jobs and extend their leases, in one statement of the work's own transaction.

        Args:
            done: job → the part of its ``total`` that has been done.

        Returns:
            The ids of the jobs that are still this worker's.
        """
        jobs = sorted(done, key=lambda job: job.pk)
        mine = rows(
            """
            WITH mine AS (
                SELECT j.id, w.done FROM storage_job j
                  JOIN unnest(%s::uuid[], %s::bigint[], %s::bigint[]) AS w(id, fence, done)
                    ON j.id = w.id AND j.fence = w.fence
                 WHERE j.state = 'running' ORDER BY j.id FOR NO KEY UPDATE OF j
            )
            UPDATE storage_job j SET done = mine.done, heartbeat_at = clock_timestamp(),
                   lease_expires_at = clock_timestamp() + %s::float8 * interval '1 second'
              FROM mine WHERE j.id = mine.id RETURNING j.id
            """,
            [[job.pk for job in jobs], [job.fence for job in jobs], [done[job] for job in jobs], LEASE.total_seconds()],
        )
        return {job_id for (job_id,) in mine}

    def succeed(self, results: Mapping[Job, dict[str, Any]]) -> set[uuid.UUID]:
        """Mark several jobs as succeeded, in one statement of the transaction that commits their work.

        Args:
            results: job → its result.

        Returns:
            The ids of the jobs that were still this worker's.
        """
        jobs = sorted(results, key=lambda job: job.pk)
        ended = rows(
            """
            UPDATE storage_job j SET state = 'succeeded', finished_at = clock_timestamp(), done = total,
                   result = w.result::jsonb
              FROM unnest(%s::uuid[], %s::bigint[], %s::text[]) AS w(id, fence, result)
             WHERE j.id = w.id AND j.fence = w.fence AND j.state = 'running' RETURNING j.id
            """,
            [[job.pk for job in jobs], [job.fence for job in jobs], [json.dumps(results[job]) for job in jobs]],
        )
        mine = {job_id for (job_id,) in ended}
        succeeded = [job for job in jobs if job.pk in mine]
        for job in succeeded:
            job.state, job.result = Job.State.SUCCEEDED, results[job]
        for kind in {job.kind for job in succeeded}:
            sizes = [job.size for job in succeeded if job.kind == kind]
            _count(kind, Outcome.SUCCEEDED, len(sizes), sum(sizes))
        return mine

    def requeue_stale(self) -> int:
        """Put abandoned jobs back into the queue, or fail them after too many attempts.

        Returns:
            The number of jobs that were put back.
        """
        stale = self.abandoned()
        stale.filter(attempts__gte=MAX_ATTEMPTS)._end(
            Job.State.FAILED,
            error={"title": "Worker lost", "detail": f"no worker survived it in {MAX_ATTEMPTS} attempts"},
        )
        return stale.update(state=Job.State.QUEUED, fence=F("fence") + 1, not_before=Clock())

    def _end(self, state: Job.State, **changes: Any) -> int:
        """End these jobs without a worker, in a transaction, and count them; returns their number."""
        with transaction.atomic():
            kinds_of = dict(self.select_for_update().order_by("pk").values_list("pk", "kind"))
            ended = type(self)(Job).filter(pk__in=list(kinds_of))
            number = ended.update(state=state, fence=F("fence") + 1, finished_at=Clock(), **changes)
            for kind, jobs in Counter(kinds_of.values()).items():
                _count(kind, Outcome(state.value), jobs)
        return number


def _count(kind: str, outcome: Outcome, number: int = 1, size: int = 0) -> None:
    """Count jobs for metrics once the present transaction, if there is one, has committed."""
    transaction.on_commit(partial(counters.add_jobs, kind, outcome, number, size))


@cache
def _columns() -> tuple[Columns, Columns, Columns]:
    return Columns(Job), Columns(Upload), Columns(Content)


class Job(models.Model):
    """A durable unit of background work. The rows in PostgreSQL are the queue; Celery only wakes workers.

    No column ever says which node has which chunk (RACES 29).
    """

    Queue: TypeAlias = queues.Queue
    Kind: TypeAlias = kinds.Kind

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    class Lack(models.TextChoices):
        """The thing that a queued job waits for."""

        NODES = "nodes"
        SPACE = "space"
        REDIS = "redis"
        DATABASE = "database"

    TERMINAL = (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=32, choices=kinds.choices)
    queue = models.CharField(max_length=32)
    priority = models.PositiveSmallIntegerField(default=0, help_text="what is lower goes first")
    subject = models.CharField(max_length=128, null=True, help_text="one queued job at most for each, and each owner")  # noqa: DJ001  null is "no subject"
    file_hash = DigestField(null=True)  # type: ignore[misc]  # the plugin has one type for null and not null
    upload = models.ForeignKey(Upload, models.SET_NULL, null=True, related_name="jobs")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        related_name="+",
        db_index=False,
        help_text="the user who has asked for it, and may look at it; empty for maintenance",
    )
    size = models.BigIntegerField(default=0, help_text="bytes of work")
    state = models.CharField(max_length=16, choices=State, default=State.QUEUED)
    done = models.BigIntegerField(default=0, help_text="of total, what has been done")
    total = models.BigIntegerField(default=0)
    waiting_for = models.CharField(max_length=32, blank=True, help_text="what a queued job lacks: nodes, space")
    error = models.JSONField(null=True)
    result = models.JSONField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    fence = models.BigIntegerField(default=0, help_text="a commit of the work must carry the present one")
    lease_expires_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    not_before = models.DateTimeField(db_default=Clock())
    created_at = models.DateTimeField(db_default=Clock())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = JobQuerySet.as_manager()

    _turn_ends = _next_look = 0.0  # Both values are times of the monotonic clock, in seconds.

    class Meta:
        ordering = ("created_at", "id")
        indexes = (
            models.Index(
                fields=["queue", "priority", "created_at", "id"], name="job_queued", condition=Q(state="queued")
            ),
            models.Index(fields=["lease_expires_at"], name="job_running", condition=Q(state="running")),
            models.Index(fields=["kind", "subject"], name="job_subject", condition=Q(subject__isnull=False)),
            models.Index(fields=["created_at", "id"], name="job_created"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @property
    def is_terminal(self) -> bool:
        return self.state in self.TERMINAL

    @classmethod
    def request(
        cls,
        kind: Job.Kind,
        subject: str,
        *,
        owner_id: int | None = None,
        file_hash: str | None = None,
        size: int = 0,
    ) -> Job:
        """Queue maintenance of a subject, or return the queued job that will do it.

        Args:
            kind: the kind of the job.
            subject: the thing that is maintained, such as a node id.
            owner_id: the row id of the user who asks for the job, and may look at it; None for the system itself.
            file_hash: SHA-256 of the content that is maintained, in hex.
            size: the number of bytes that the job has to handle.
        """
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s), hashtext(%s))", [kind, subject])
            queued = cls.objects.filter(kind=kind, subject=subject, owner=owner_id, state=cls.State.QUEUED).first()
            return queued or cls.objects.create(
                kind=kind,
                subject=subject,
                queue=cls.Queue.MAINTENANCE,
                priority=kind.priority,
                owner_id=owner_id,
                file_hash=file_hash,
                size=size,
            )

    @classmethod
    def ensure(cls, kind: Job.Kind, subject: str) -> Job:
        """Return the open job of this kind and subject, or queue one if there is none.

        This is for work of which one run is enough: a job that is already running also serves this call.
        """
        return cls.objects.open().filter(kind=kind, subject=subject).first() or cls.request(kind, subject)

    def steps(self, total: int) -> Iterator[int]:
        """The remaining steps of a long job, from where its last attempt or turn ended.

        After the caller's work for a step, one commit records the step as done and keeps ``result``. The work for a
        step must be repeatable: a worker may die between the work and its commit.

        Raises:
            LeaseLost: the fencing token is no longer this worker's.
            TurnEnded: see ``make_way``.
        """
        for step in range(self.done, total):
            yield step
            self.progress(done=step + 1, total=total)
            if step + 1 < total:
                self.make_way()

    def begin_turn(self) -> None:
        """Begin a turn: the time for which a worker may keep this long job while other jobs wait."""
        self._next_look = time.monotonic() + LOOK_AROUND
        self._turn_ends = time.monotonic() + TURN

    def make_way(self) -> None:
        """Let other jobs go first if they are more urgent or if this turn has lasted for ``TURN`` seconds.

        The caller has called ``progress`` before.

        Raises:
            TurnEnded: the caller must put the job back; the job will go on from its last ``progress``.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_AROUND
        queued = type(self).objects.queued(self.queue)
        if now > self._turn_ends or queued.filter(priority__lt=self.priority).exists():
            raise TurnEnded(str(self.pk))

    def progress(self, *, done: int | None = None, total: int | None = None) -> None:
        """Report progress, keep the ``result`` so far, and extend the lease. Every commit of the job's work includes
        this call.

        Raises:
            LeaseLost: the fencing token is no longer this worker's.
        """
        changes: dict[str, Any] = {
            "heartbeat_at": Clock(),
            "lease_expires_at": Clock() + LEASE,
            "result": self.result,
        }
        if done is not None:
            changes["done"] = self.done = done
        if total is not None:
            changes["total"] = self.total = total
        self._fenced(changes)

    def succeed(self, result: dict[str, Any]) -> None:
        self._fenced({"state": self.State.SUCCEEDED, "finished_at": Clock(), "result": result, "done": F("total")})
        self.state, self.result = self.State.SUCCEEDED, result
        _count(self.kind, Outcome.SUCCEEDED, size=self.size)

    def fail(self, title: str, detail: str) -> None:
        """End the job for good."""
        error = {"title": title, "detail": detail}
        self._fenced({"state": self.State.FAILED, "finished_at": Clock(), "error": error})
        self.state = self.State.FAILED
        _count(self.kind, Outcome.FAILED)

    def retry(self, title: str, detail: str) -> None:
        """Put the job back into the queue after a failed attempt, with a longer delay each time.

        After ``MAX_ATTEMPTS`` the job fails.
        """
        if self.attempts >= MAX_ATTEMPTS:
            self.fail(title, detail)
            return
        delay = timedelta(seconds=RETRY_DELAYS[min(self.attempts, len(RETRY_DELAYS) - 1)])
        self._fenced(
            {"state": self.State.QUEUED, "error": {"title": title, "detail": detail}, "not_before": Clock() + delay}
        )
        self.state = self.State.QUEUED
        _count(self.kind, Outcome.RETRIED)

    def end_turn(self) -> None:
        """Put the job back into the queue, to go on in a later turn. The count of attempts begins again at 0."""
        self._fenced({"state": self.State.QUEUED, "attempts": 0, "not_before": Clock()})
        self.state = self.State.QUEUED

    def wait(self, lack: Job.Lack, delay: timedelta = timedelta(seconds=5)) -> None:
        """Put the job back into the queue for ``delay``, because it lacks ``lack``.

        This costs no attempt (RACES 18).
        """
        self._fenced(
            {
                "state": self.State.QUEUED,
                "waiting_for": lack,
                "attempts": F("attempts") - 1,
                "not_before": Clock() + delay,
            }
        )
        self.state = self.State.QUEUED

    @classmethod
    def cancel(cls, job_ids: Iterable[uuid.UUID]) -> int:
        """Cancel the jobs that have not ended.

        A worker that runs such a job notices at its next commit that its lease is lost.
        """
        return cls.objects.filter(id__in=list(job_ids)).open()._end(cls.State.CANCELLED)

    def _fenced(self, changes: dict[str, Any]) -> None:
        mine = type(self).objects.filter(pk=self.pk, fence=self.fence, state=self.State.RUNNING)
        if mine.update(**changes) != 1:
            raise LeaseLost(str(self.pk))
