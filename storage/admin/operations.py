"""The base class of the pages on which the operator starts operations but edits nothing by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django.contrib import admin, messages
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from storage.exceptions import StorageError
from storage.models import Job

M = TypeVar("M", bound=Model)


class NoHandEdits(admin.ModelAdmin[M]):
    """The page of rows that only the system makes, changes and removes.

    A user who has Django's permission to change the rows may start operations on them instead.
    """

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """True if the user may start the actions that have ``permissions=["operate"]``."""
        return super().has_change_permission(request)

    def carry_out(self, request: HttpRequest, chosen: Iterable[M], operation: Callable[[M], Job | None]) -> None:
        """Call ``operation``, a service, for each of the chosen rows, and tell the user the result."""
        for row in chosen:
            try:
                job = operation(row)
            except StorageError as error:
                self.message_user(request, f"{row}: {error}", messages.ERROR)
            else:
                self.message_user(request, link_to(job) if job else f"{row}: done")


def link_to(job: Job) -> str:
    """A sentence with a link to the page of a job."""
    page = reverse("admin:storage_job_change", args=[job.pk])
    return format_html('<a href="{}">{} {}</a> is {}', page, job.kind, job.subject, job.state)
