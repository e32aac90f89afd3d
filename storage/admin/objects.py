from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import Count, Exists, OuterRef, QuerySet
from django.http import HttpRequest

from storage.admin.columns import NOTHING, elided, shown, size
from storage.admin.operations import NoHandEdits, Page
from storage.admin.paging import PatientPaginator
from storage.admin.quotas import SizeField, limit, total
from storage.models import Bucket, Object, Part, Tally
from storage.models.names import end_of_prefix

PARTS_SHOWN = 20  # A page of an object shows at most this many parts.


class Limits(forms.ModelForm[Bucket]):
    """The form in which an operator changes the quota of a bucket, and the factor of its new objects."""

    max_bytes = SizeField(label="Bytes", required=False, help_text="such as 10GB or 1.5TiB; empty: no limit")

    class Meta:
        model = Bucket
        fields = ("replication_factor", "max_bytes", "max_objects")


@admin.register(Bucket)
class BucketAdmin(Page[Bucket]):
    """The buckets, and what they hold. Clients make and delete them."""

    form = Limits
    list_display = (
        "name",
        "owner",
        "objects",
        shown("max_objects", "objects at most", lambda most: "no limit" if most is None else most),
        "stored_bytes",
        shown("max_bytes", "bytes at most", limit),
        shown("replication_factor", "replicas", lambda factor: factor or "REPLICATION_FACTOR"),
        shown("created_at", "made"),
    )
    list_filter = ("owner",)
    list_select_related = ("owner",)
    search_fields = ("name", "owner__username")
    ordering = ("name",)
    fields: ClassVar[Any] = ("name", "owner", "objects", "stored_bytes", *Limits.Meta.fields, list_display[-1])
    readonly_fields: ClassVar[Any] = ("name", "owner", "objects", "stored_bytes", list_display[-1])

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Bucket | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Bucket]:
        return (
            super()
            .get_queryset(request)
            .annotate(object_count=total(Tally.What.OBJECTS), byte_count=total(Tally.What.PARTS))
        )

    @admin.display(description="objects")
    def objects(self, bucket: Bucket) -> int:
        return int(getattr(bucket, "object_count", 0))

    @admin.display(description="bytes stored")
    def stored_bytes(self, bucket: Bucket) -> str:
        """The bytes of all parts, those of unfinished multipart uploads included."""
        return size(getattr(bucket, "byte_count", 0))


class ObjectPaginator(PatientPaginator[Object]):
    """A paginator that reads the number of all objects from the tally."""

    def count_all(self) -> int:
        return sum(Tally.totals(Tally.What.OBJECTS).values())


@admin.register(Object)
class ObjectAdmin(NoHandEdits[Object]):
    """The inventory of objects."""

    list_display = (
        "short_key",
        "bucket",
        "readable_size",
        "condition",
        shown("content_type", "type", elided),
        shown("modified_at", "changed"),
    )
    list_filter = ("bucket",)
    list_select_related = ("bucket",)
    paginator = ObjectPaginator
    show_full_result_count = False
    search_fields = ("key",)
    search_help_text = "the beginning of a key, or of a bucket's name and a key: bucket/key"
    ordering = ("bucket_id", "key")
    fields: ClassVar[Any] = (
        "key",
        "bucket",
        "readable_size",
        "condition",
        shown("etag", "ETag"),
        shown("content_type", "type"),
        "said",
        "parts",
        shown("modified_at", "changed"),
    )
    readonly_fields: ClassVar[Any] = fields

    def called(self, row: Object) -> str:
        return elided(row.key)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Object]:
        parts = Part.objects.filter(object=OuterRef("pk"))
        return super().get_queryset(request).annotate(is_lost=Exists(parts.filter(content__retrievable=False)))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Object], search_term: str
    ) -> tuple[QuerySet[Object], bool]:
        """Search by the beginning of keys, which has an index in each bucket."""
        term = search_term.strip().replace("\0", "")
        if not term:
            return queryset, False
        name, slash, prefix = term.partition("/")
        named = list(Bucket.objects.filter(name=name).values_list("pk", flat=True)) if slash else []
        every = list(Bucket.objects.values_list("pk", flat=True))
        found = _beginning_with(prefix, named) if named else _beginning_with(term, every)
        return queryset.filter(pk__in=found), False

    @admin.display(description="key", ordering="key")
    def short_key(self, row: Object) -> str:
        return elided(row.key)

    @admin.display(description="size", ordering="size")
    def readable_size(self, row: Object) -> str:
        return size(row.size)

    @admin.display(description="state")
    def condition(self, row: Object) -> str:
        return "not retrievable" if getattr(row, "is_lost", False) else "ready"

    @admin.display(description="metadata, headers and tags")
    def said(self, row: Object) -> str:
        pairs = {name: _decoded(value) for name, value in {**row.headers, **row.metadata}.items()} | row.tags
        return ", ".join(f"{name}: {value}" for name, value in pairs.items()) or NOTHING

    @admin.display(description="parts")
    def parts(self, row: Object) -> str:
        of_object = Part.objects.filter(object=row)
        number = of_object.aggregate(number=Count("pk"))["number"]
        first = of_object.select_related("content").order_by("number")[:PARTS_SHOWN]
        shown_parts = [f"{part.content.file_hash[:12]}… ({size(part.size)})" for part in first]
        return ", ".join(shown_parts) + (f" and {number - len(shown_parts)} more" if number > PARTS_SHOWN else "")


def _decoded(value: str) -> str:
    """The text of a header field. The S3 door keeps each byte as the character with the same number (Latin-1)."""
    try:
        return value.encode("latin-1").decode(errors="replace")
    except UnicodeEncodeError:
        return value


def _beginning_with(prefix: str, buckets: list[int]) -> QuerySet[Object]:
    found = Object.objects.filter(bucket__in=buckets, key__gte=prefix)
    end = end_of_prefix(prefix)
    return found if end is None else found.filter(key__lt=end)
