from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse

from storage import plans
from storage.admin import columns
from storage.admin.columns import Uploaded, elided, moment, shown, size
from storage.admin.operations import Asked, Page
from storage.admin.paging import PatientPaginator
from storage.models import Cluster, Content, File, Holding, Node, Tally
from storage.models.names import fault_of
from storage.services import catalogue, rebalance

HASH_PREFIX = re.compile(r"[0-9a-f]{4,64}")
FOUND_BY_HASH = 1000  # A search by hash finds at most this many files.


FACTOR = shown("replication_factor", "wanted")
UPLOADED = shown("created_at", "uploaded")
REBALANCE: Asked[File] = Asked(
    "Rebalance",
    "Each file is brought to its replication factor: missing copies are made, and surplus copies go to the trash.",
    lambda file: plans.of_file_rebalance(rebalance.plan(Holding.of_file(file), None)),
    lambda file: rebalance.request(Holding.of_file(file), None),
)


def hash_range(prefix: str) -> tuple[str, str]:
    """The first and the last SHA-256 that begin with the hex digits ``prefix``."""
    return prefix.ljust(64, "0"), prefix.ljust(64, "f")


class FilePaginator(PatientPaginator[File]):
    """A paginator that reads the number of all files from the tally."""

    def count_all(self) -> int:
        return sum(Tally.totals(Tally.What.FILES).values())


class FactorFilter(admin.SimpleListFilter):
    """A filter that offers every factor that a file can have, without a query for the factors that files have."""

    title = "replication factor"
    parameter_name = "replication_factor"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return [(str(factor), str(factor)) for factor in range(1, Node.objects.count() + 1)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[File]) -> QuerySet[File]:
        chosen = self.value() or ""
        return queryset.filter(replication_factor=int(chosen)) if chosen.isdecimal() else queryset


class Rename(forms.ModelForm[File]):
    """The form in which an operator gives a file another name."""

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if reason := fault_of(name):
            raise ValidationError(reason)
        return name


@admin.register(File)
class FileAdmin(Page[File]):
    """The file inventory. The operator may rename and delete files, as owners may."""

    form = Rename

    list_display = (
        "short_name",
        "short_hash",
        "readable_size",
        "condition",
        "replicas",
        FACTOR,
        "owner",
        UPLOADED,
    )
    list_filter = ("content__state", "content__retrievable", FactorFilter, ("created_at", Uploaded))
    paginator = FilePaginator
    show_full_result_count = False
    list_select_related = ("content", "owner")
    search_fields = ("name",)
    search_help_text = "part of a name, or at least four hex digits that the hash begins with"
    ordering = ("-id",)
    fields: ClassVar[Any] = (
        "name",
        "owner",
        "file_hash",
        "readable_size",
        "chunks",
        "condition",
        "replication",
        shown("replication_factor", "replication factor"),
        "health_as_of",
        "health_exact",
        UPLOADED,
    )
    readonly_fields: ClassVar[Any] = fields[1:]
    actions = ("rebalance_files",)

    def called(self, row: File) -> str:
        return elided(row.name)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[File]:
        epoch = Cluster.objects.values("topology_epoch")[:1]
        return super().get_queryset(request).annotate(epoch=Subquery(epoch))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[File], search_term: str
    ) -> tuple[QuerySet[File], bool]:
        found, duplicates = super().get_search_results(request, queryset, search_term)
        prefix = search_term.strip().lower()
        if HASH_PREFIX.fullmatch(prefix):
            # The hash selects ids first: a condition on columns of two tables, joined by OR, could use no index.
            by_hash = File.objects.filter(content__file_hash__range=hash_range(prefix)).order_by()
            found = queryset.filter(
                Q(name__icontains=prefix) | Q(pk__in=list(by_hash.values_list("pk", flat=True)[:FOUND_BY_HASH]))
            )
        return found, duplicates

    def save_model(self, request: HttpRequest, obj: File, form: Any, change: bool) -> None:
        obj.pk = catalogue.rename(obj, name=obj.name).pk

    def delete_model(self, request: HttpRequest, obj: File) -> None:
        catalogue.delete(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[File]) -> None:
        for file in queryset.select_related("content"):
            catalogue.delete(file)

    @admin.action(description="Rebalance to the replication factor", permissions=["change"])
    def rebalance_files(self, request: HttpRequest, queryset: QuerySet[File]) -> HttpResponse | None:
        return self.ask_first(request, queryset.select_related("content"), REBALANCE)

    @admin.display(description="name", ordering="name")
    def short_name(self, file: File) -> str:
        return elided(file.name)

    @admin.display(description="hash")
    def short_hash(self, file: File) -> str:
        return columns.short_hash(file.content.file_hash)

    @admin.display(description="hash")
    def file_hash(self, file: File) -> str:
        return file.content.file_hash

    @admin.display(description="size", ordering="size")
    def readable_size(self, file: File) -> str:
        return size(file.size)

    @admin.display(description="chunks")
    def chunks(self, file: File) -> int:
        return file.content.chunk_count

    @admin.display(description="state")
    def condition(self, file: File) -> str:
        content = file.content
        return "not retrievable" if content.state == Content.State.READY and not content.retrievable else content.state

    @admin.display(description="replicas")
    def replicas(self, file: File) -> str:
        """The fewest and the most replicas that a chunk of the file has; one number if they are the same."""
        content = file.content
        fewest, most = content.min_replication, content.max_replication
        return str(fewest) if fewest == most else f"{fewest} to {most}"

    @admin.display(description="replicas: fewest, average, most")
    def replication(self, file: File) -> str:
        content = file.content
        return f"{content.min_replication} / {content.avg_replication:g} / {content.max_replication}"

    @admin.display(description="replicas counted")
    def health_as_of(self, file: File) -> str:
        return moment(file.content.health_at)

    @admin.display(description="no node has changed since", boolean=True)
    def health_exact(self, file: File) -> bool:
        """True if no node has changed state since the health summary was written."""
        return file.content.health_epoch >= getattr(file, "epoch", 0)
