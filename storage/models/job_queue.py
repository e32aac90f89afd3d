"""The queue of jobs: statements about many jobs at once."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.fields.tuple_lookups import Tuple, TupleLessThan

from storage import counters
from storage.counters import Outcome
from storage.models import kinds
from storage.models.clock import Clock
from storage.models.content import Content
from storage.models.statements.prepared import Columns, rows
from storage.models.upload import Upload

if TYPE_CHECKING:
    from storage.models.job import Job

LEASE = timedelta(seconds=20)
LONGEST_DELAY = timedelta(seconds=60)  # A ``not_before`` further ahead shows that PostgreSQL's clock was set back.
MAX_ATTEMPTS = 5


class JobQuerySet(models.QuerySet["Job"]):
    def queued(self, queue: str) -> JobQuerySet:
        """Jobs that may be claimed now: the most urgent first, and the oldest first among equally urgent jobs."""
        due = Q(not_before__lte=Clock()) | Q(not_before__gt=Clock() + LONGEST_DELAY)
        return self.filter(due, queue=queue, state=self.model.State.QUEUED).order_by("priority", "created_at", "id")

    def abandoned(self) -> JobQuerySet:
        """Running jobs whose lease is over: it has expired, or it expires later than any lease that begins now.

        A lease that expires so late began before PostgreSQL's clock was set back. If a worker still runs an abandoned
        job, it notices at its next commit that its lease is lost, and the job is done again.
        """
        over = Q(lease_expires_at__lt=Clock()) | Q(lease_expires_at__gt=Clock() + LEASE)
        return self.filter(over, state=self.model.State.RUNNING)

    def open(self) -> JobQuerySet:
        """Jobs that have not ended."""
        return self.exclude(state__in=self.model.TERMINAL)

    def before(self, created_at: datetime, job_id: uuid.UUID) -> JobQuerySet:
        """The jobs that are older than a job. Jobs that were created at the same time are in the order of their ids."""
        return self.filter(TupleLessThan(Tuple(F("created_at"), F("id")), (created_at, job_id)))

    def last_of(self, kind: str) -> Job | None:
        """The maintenance job of this kind that succeeded last. A job with an end in the future is left out."""
        ended = self.filter(kind=kind, subject__isnull=False, state=self.model.State.SUCCEEDED)
        return ended.filter(finished_at__lte=Clock()).order_by("-finished_at").first()

    def last_audits(self, node_ids: Iterable[str]) -> dict[str, datetime]:
        """Node → the time at which its last audit ended. Nodes that were never audited are left out."""
        audits = self.filter(kind=kinds.Kind.AUDIT, subject__in=list(node_ids), state=self.model.State.SUCCEEDED)
        return dict(audits.values_list("subject").annotate(at=models.Max("finished_at")))

    def claim(self, queue: str, *, most: int, most_bytes: int) -> list[Job]:
        """Claim queued jobs for this worker. Each job gets a new fencing token and a lease.

        A job that has had an attempt before is claimed alone: a job that fails every time must not use up the attempts
        of other jobs (RACES 28).

        Args:
            queue: the name of the queue.
            most: the largest number of jobs.
            most_bytes: the largest sum of the jobs' sizes in bytes. The first job is claimed whatever its size.
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
            {"upload": upload.pk, "kind": kinds.Kind.INGEST_SEGMENT.value},
        )

    def _take(self, chosen: str, parameters: dict[str, Any]) -> list[Job]:
        """Claim the jobs that the query ``chosen`` locks, and read their uploads and contents, in one statement."""
        job, upload, content = _columns(self.model)
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
            taken_job = job.take(self.model, row)
            assert taken_job is not None
            taken_job.upload = upload.take(Upload, row)
            if taken_job.upload:
                taken_job.upload.content = content.take(Content, row)
            taken_job.begin_turn()
            jobs.append(taken_job)
        return jobs

    def of_worker(self, job: Job) -> JobQuerySet:
        """The row of a claimed job; no row if the job is no longer this worker's."""
        return self.filter(pk=job.pk, fence=job.fence, state=self.model.State.RUNNING)

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
            job.state, job.result = self.model.State.SUCCEEDED, results[job]
        for kind in {job.kind for job in succeeded}:
            sizes = [job.size for job in succeeded if job.kind == kind]
            count_jobs(kind, Outcome.SUCCEEDED, len(sizes), sum(sizes))
        return mine

    def requeue_stale(self) -> int:
        """Put abandoned jobs back into the queue, or fail them after too many attempts.

        Returns:
            The number of jobs that were put back.
        """
        stale = self.abandoned()
        stale.filter(attempts__gte=MAX_ATTEMPTS).end(
            self.model.State.FAILED,
            error={"title": "Worker lost", "detail": f"no worker survived it in {MAX_ATTEMPTS} attempts"},
        )
        return stale.update(state=self.model.State.QUEUED, fence=F("fence") + 1, not_before=Clock())

    def end(self, state: Job.State, **changes: Any) -> int:
        """End the jobs of this query without a worker, and count them for metrics; returns the number of jobs."""
        with transaction.atomic():
            kinds_of = dict(self.select_for_update().order_by("pk").values_list("pk", "kind"))
            ended = type(self)(self.model).filter(pk__in=list(kinds_of))
            number = ended.update(state=state, fence=F("fence") + 1, finished_at=Clock(), **changes)
            for kind, jobs in Counter(kinds_of.values()).items():
                count_jobs(kind, Outcome(state.value), jobs)
        return number


def count_jobs(kind: str, outcome: Outcome, number: int = 1, size: int = 0) -> None:
    """Count jobs for metrics once the present transaction, if there is one, has committed."""
    transaction.on_commit(partial(counters.add_jobs, kind, outcome, number, size))


@cache
def _columns(job: type[Job]) -> tuple[Columns, Columns, Columns]:
    return Columns(job), Columns(Upload), Columns(Content)
