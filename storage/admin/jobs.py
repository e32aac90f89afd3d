from __future__ import annotations

import json
import uuid
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from storage.admin.operations import NoHandEdits
from storage.admin.paging import PatientPaginator
from storage.models import Job
from storage.services import cancel


@admin.register(Job)
class JobAdmin(NoHandEdits[Job]):
    list_display = (
        "id",
        "kind",
        "subject",
        "state",
        "progress_made",
        "waiting_for",
        "attempts",
        "created_at",
        "finished_at",
    )
    list_filter = ("state", "kind", "created_at")
    search_fields = ("subject",)
    search_help_text = "an id, or part of a subject"
    ordering = ("-created_at", "-id")
    paginator = PatientPaginator
    show_full_result_count = False
    actions = ("cancel_jobs",)
    fields = (
        "id",
        "kind",
        "subject",
        "file_hash",
        "queue",
        "state",
        "progress_made",
        "waiting_for",
        "pretty_result",
        "pretty_error",
        "attempts",
        "size",
        "created_at",
        "started_at",
        "heartbeat_at",
        "not_before",
        "finished_at",
    )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        try:
            return queryset.filter(pk=uuid.UUID(search_term.strip())), False
        except ValueError:
            return super().get_search_results(request, queryset, search_term)

    @admin.display(description="progress")
    def progress_made(self, job: Job) -> str:
        return f"{job.done} / {job.total}" if job.total else "—"

    @admin.display(description="result")
    def pretty_result(self, job: Job) -> str:
        return _readable(job.result)

    @admin.display(description="error")
    def pretty_error(self, job: Job) -> str:
        return _readable(job.error)

    @admin.action(description="Cancel: what is done stays done", permissions=["operate"])
    def cancel_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self.carry_out(request, queryset, cancel.cancel)


def _readable(document: Any) -> str:
    return "—" if document is None else format_html("<pre>{}</pre>", json.dumps(document, indent=2))
