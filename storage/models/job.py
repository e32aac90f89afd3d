from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeAlias

from django.conf import settings
from django.db import connection, models, transaction
from django.db.models import F, Q

from storage import queues
from storage.counters import Outcome
from storage.exceptions import LeaseLost, TurnEnded
from storage.models import kinds
from storage.models.clock import Clock
from storage.models.fields import DigestField
from storage.models.job_queue import LEASE, MAX_ATTEMPTS, JobQuerySet, count_jobs
from storage.models.upload import Upload

RETRY_DELAYS = (0, 1, 5, 15, 30)
TURN = 60.0  # After this number of seconds a long job lets other jobs of its priority go first.
LOOK_AROUND = 1.0  # Seconds between two looks for jobs that are more urgent than the present one.


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

        Call this for work of which one run is enough: a job that is already running also serves this call.
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
        if self.total != total:
            self.progress(total=total)
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
        count_jobs(self.kind, Outcome.SUCCEEDED, size=self.size)

    def fail(self, title: str, detail: str) -> None:
        """End the job for good."""
        error = {"title": title, "detail": detail}
        self._fenced({"state": self.State.FAILED, "finished_at": Clock(), "error": error})
        self.state = self.State.FAILED
        count_jobs(self.kind, Outcome.FAILED)

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
        count_jobs(self.kind, Outcome.RETRIED)

    def end_turn(self) -> None:
        """Put the job back into the queue, to go on in a later turn. The count of attempts begins again at 0."""
        self._fenced({"state": self.State.QUEUED, "attempts": 0, "not_before": Clock()})
        self.state = self.State.QUEUED

    def wait(self, lack: Job.Lack, delay: timedelta = timedelta(seconds=5)) -> None:
        """Put the job back into the queue, because it lacks ``lack``. No worker claims it before ``delay`` is over.

        A job that waits for a lack uses up no attempt (RACES 18).
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
        return cls.objects.filter(id__in=list(job_ids)).open().end(cls.State.CANCELLED)

    def _fenced(self, changes: dict[str, Any]) -> None:
        if type(self).objects.of_worker(self).update(**changes) != 1:
            raise LeaseLost(str(self.pk))
