from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils.html import format_html

from storage.admin.columns import NOTHING, Column, Requested, elided, short_hash, shown, size
from storage.admin.operations import NoHandEdits
from storage.admin.paging import PatientPaginator
from storage.jobs.naming import name_of, noun_of
from storage.models import File, Job
from storage.services import cancel, retry

SHORT = 8  # A list shows this many characters of an id, and an operator may search for them.
SHORT_ID = re.compile(r"[0-9a-f]{8}")

SIZE = shown("size", "size", size)
REQUESTED = shown("created_at", "requested")
ENDED = shown("finished_at", "ended")


class WorkFilter(admin.SimpleListFilter):
    """The choice between the list of maintenance and the list of uploads. Maintenance is shown first."""

    title = "work"
    parameter_name = "work"
    UPLOADS = "uploads"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return [("maintenance", "Maintenance"), (self.UPLOADS, "Uploads")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        chosen = self.value() or "maintenance"
        for lookup, title in self.lookup_choices:
            query = changelist.get_query_string({self.parameter_name: lookup}, [KindFilter.parameter_name])
            yield {"selected": lookup == chosen, "query_string": query, "display": title}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        # Only maintenance has a subject, and the rows that have one are in an index.
        return queryset.filter(subject__isnull=self.value() == self.UPLOADS)


class KindFilter(admin.SimpleListFilter):
    """The kinds of maintenance, under the names that jobs have on the pages."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        kinds = [kind for kind in Job.Kind if kind not in (Job.Kind.INGEST, Job.Kind.INGEST_SEGMENT)]
        names = {Job.Kind.REBALANCE: "rebalance of a file", Job.Kind.REPAIR: "repair of a chunk"}
        return [] if lists_uploads(request) else [(kind.value, names.get(kind, noun_of(kind))) for kind in kinds]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(Job)
class JobAdmin(NoHandEdits[Job]):
    """Maintenance and uploads, in two lists. The page of a job is at one address, whichever list has the job."""

    list_filter = (WorkFilter, "state", KindFilter, ("created_at", Requested))
    search_fields = ("subject",)
    search_help_text = "an id, the first eight characters of an id, or a part of a node id or a hash"
    ordering = ("-created_at", "-id")
    paginator = PatientPaginator
    show_full_result_count = False
    actions = ("cancel_jobs", "retry_jobs")
    fields: ClassVar[Any] = (
        "id",
        "name",
        "file",
        shown("file_hash", "hash"),
        "state_in_words",
        "progress_made",
        "pretty_result",
        "pretty_error",
        SIZE,
        shown("attempts", "attempts"),
        shown("queue", "queue"),
        REQUESTED,
        shown("started_at", "started"),
        shown("heartbeat_at", "last sign of life"),
        shown("not_before", "not before"),
        ENDED,
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        # While a job stores an upload, the upload's row names the file. After that, the owner's newest name for the
        # same bytes is shown.
        same = File.objects.filter(owner=OuterRef("owner"), content__file_hash=OuterRef("file_hash")).order_by("-id")
        return (
            super()
            .get_queryset(request)
            .annotate(file_name=Coalesce(F("upload__file__name"), Subquery(same.values("name")[:1])))
        )

    def heading(self, request: HttpRequest) -> str:
        return "Uploads" if lists_uploads(request) else "Maintenance"

    def called(self, row: Job) -> str:
        return name_of(row)

    def get_list_display(self, request: HttpRequest) -> tuple[str | Column, ...]:
        what: tuple[str | Column, ...] = ("file", SIZE) if lists_uploads(request) else ("name",)
        return ("short_id", *what, "state_in_words", "progress_made", REQUESTED, ENDED)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        """Find a job by its id, whichever list it is in, and maintenance jobs by their subject."""
        term = search_term.strip().lower()
        everywhere = self.get_queryset(request).order_by(*self.ordering)
        try:
            return everywhere.filter(pk=uuid.UUID(term)), False
        except ValueError:
            pass
        if SHORT_ID.fullmatch(term):
            first, last = (uuid.UUID(term.ljust(32, digit)) for digit in "0f")
            by_id = everywhere.filter(pk__range=(first, last))
            if by_id.exists():
                return by_id, False
        return super().get_search_results(request, queryset, search_term)

    @admin.display(description="id", ordering="id")
    def short_id(self, job: Job) -> str:
        return format_html('<span title="{}">{}</span>', job.pk, str(job.pk)[:SHORT])

    @admin.display(description="job", ordering="kind")
    def name(self, job: Job) -> str:
        return name_of(job)

    @admin.display(description="file")
    def file(self, job: Job) -> str:
        name = getattr(job, "file_name", None)
        return elided(name) if name else short_hash(job.file_hash)

    @admin.display(description="state", ordering="state")
    def state_in_words(self, job: Job) -> str:
        waits = job.state == Job.State.QUEUED and job.waiting_for
        return f"{job.state}, waiting for {job.waiting_for}" if waits else job.state

    @admin.display(description="progress")
    def progress_made(self, job: Job) -> str:
        return f"{job.done} / {job.total}" if job.total else NOTHING

    @admin.display(description="result")
    def pretty_result(self, job: Job) -> str:
        return _readable(job.result)

    @admin.display(description="error")
    def pretty_error(self, job: Job) -> str:
        return _readable(job.error)

    @admin.action(description="Cancel: maintenance stops here, an upload is taken back", permissions=["operate"])
    def cancel_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        def cancelled(job: Job) -> Job:
            cancel.cancel(job)
            job.refresh_from_db(fields=["state"])
            return job

        self.carry_out(request, queryset, cancelled)

    @admin.action(description="Try again: do the work of failed and cancelled jobs once more", permissions=["operate"])
    def retry_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self.carry_out(request, queryset, retry.retry)


def lists_uploads(request: HttpRequest) -> bool:
    """True if the list of uploads is asked for, and not that of maintenance."""
    return request.GET.get(WorkFilter.parameter_name) == WorkFilter.UPLOADS


def _readable(document: Any) -> str:
    return NOTHING if document is None else format_html("<pre>{}</pre>", json.dumps(document, indent=2))
