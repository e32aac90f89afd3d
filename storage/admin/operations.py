"""The base classes of the pages. Operations show their plan and ask for a confirmation; most rows are read-only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst

from storage.exceptions import StorageError
from storage.jobs.naming import name_of
from storage.models import Job
from storage.plans import Words

M = TypeVar("M", bound=Model)

CONFIRMED = "confirmed"  # This field of the form says that the operator has confirmed the plan.
MOST_AT_ONCE = 100  # The largest number of rows that one plan is made for.


@dataclass(frozen=True)
class Asked(Generic[M]):
    """An operation that shows its plan, and starts when the operator has confirmed it.

    Attributes:
        verb: the word on the button.
        consequence: sentences that say what the operation does, and what the operator has to do after it.
        plan: a function that says what would be done with a row, and changes nothing.
        begin: the service that starts the operation.
        question: the title of the page; by default the verb and the name of the row.
    """

    verb: str
    consequence: str
    plan: Callable[[M], Words]
    begin: Callable[[M], Job]
    question: str = ""


class Page(admin.ModelAdmin[M]):
    """The pages of a model."""

    class Media:
        css: ClassVar[dict[str, tuple[str, ...]]] = {"all": ("occ/admin.css",)}

    show_facets = admin.ShowFacets.NEVER  # Facets would count all rows of the table, once for each filter.

    def heading(self, request: HttpRequest) -> str:
        """The title of the list."""
        return capfirst(str(self.opts.verbose_name_plural))

    def called(self, row: M) -> str:
        """The name of a row, in a form that fits into the sentence of a message."""
        return str(row)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"title": self.heading(request), **(extra_context or {})})

    def carry_out(self, request: HttpRequest, chosen: Iterable[M], operation: Callable[[M], Job]) -> None:
        """Call ``operation``, a service, for each of the chosen rows, and tell the user the result."""
        for row in chosen:
            try:
                self.message_user(request, link_to(operation(row)))
            except StorageError as error:
                self.refuse(request, row, error)

    def ask_first(self, request: HttpRequest, chosen: QuerySet[M], operation: Asked[M]) -> HttpResponse | None:
        """Show the plan for the chosen rows, or carry it out if the user has confirmed it.

        Rows for which there is no plan are refused. If no row is left, the user sees the list again.
        """
        if request.POST.get(CONFIRMED) == "yes":
            self.carry_out(request, chosen, operation.begin)
            return None
        rows = list(chosen[: MOST_AT_ONCE + 1])
        if len(rows) > MOST_AT_ONCE:
            message = f"No plan is made for more than {MOST_AT_ONCE} at once: choose fewer."
            self.message_user(request, message, messages.ERROR)
            return None
        planned = []
        for row in rows:
            try:
                planned.append((row, operation.plan(row)))
            except StorageError as error:
                self.refuse(request, row, error)
        return self._question(request, operation, planned) if planned else None

    def refuse(self, request: HttpRequest, row: M, error: StorageError) -> None:
        """Tell the user why an operation is not possible. Django shows the first letter of a message as a capital."""
        self.message_user(request, format_html("Refused for {}: {}", self.called(row), error), messages.ERROR)

    def _question(self, request: HttpRequest, operation: Asked[M], planned: list[tuple[M, Words]]) -> HttpResponse:
        many = f"{len(planned)} {self.opts.verbose_name_plural}"
        called = [self.called(row) for row, _ in planned]
        which = called[0] if len(called) == 1 else many
        context = {
            **self.admin_site.each_context(request),
            "title": operation.question or format_html("{} {}?", operation.verb, which),
            "opts": self.opts,
            "operation": operation,
            "plans": [(name, words) for name, (_, words) in zip(called, planned, strict=True)],
            "fields": [
                *((ACTION_CHECKBOX_NAME, row.pk) for row, _ in planned),
                ("action", request.POST.get("action")),
                (CONFIRMED, "yes"),
            ],
            "list": request.get_full_path(),
        }
        return TemplateResponse(request, "admin/storage/confirmation.html", context)


class NoHandEdits(Page[M]):
    """The page of rows that only the system makes, changes and removes.

    A user who has Django's permission to change the rows may start operations on them, but not edit them.
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


def link_to(job: Job) -> str:
    """A sentence with a link to the page of a job, such as ``Rebalance of the cluster is queued.``"""
    page = reverse("admin:storage_job_change", args=[job.pk])
    return format_html('<a href="{}">{}</a> is {}.', page, capfirst(name_of(job)), job.state)
