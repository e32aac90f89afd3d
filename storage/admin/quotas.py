from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from storage.accounts import quotas
from storage.admin.columns import NOTHING, shown, size
from storage.admin.operations import Page
from storage.exceptions import InvalidRequest
from storage.models import Bucket, Quota, Tally


class SizeField(forms.CharField):
    """A number of bytes as an operator writes it, such as ``10GB``; empty for no limit."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        try:
            return quotas.parse(text, "bytes") if text else None
        except InvalidRequest as error:
            raise ValidationError(str(error)) from None


class Limits(forms.ModelForm[Quota]):
    """The form in which an operator limits how much an owner may store."""

    max_bytes = SizeField(label="Bytes", required=False, help_text="such as 10GB or 1.5TiB; empty: no limit")

    class Meta:
        model = Quota
        fields = ("owner", "max_bytes", "max_files")


def limit(most: int | None) -> str:
    return "no limit" if most is None else size(most)


@admin.register(Quota)
class QuotaAdmin(Page[Quota]):
    """The quotas of owners, and what these owners have stored."""

    form = Limits
    list_display = (
        "owner",
        "used_files",
        shown("max_files", "files at most", lambda most: "no limit" if most is None else most),
        "used_bytes",
        shown("max_bytes", "bytes at most", limit),
    )
    list_select_related = ("owner",)
    search_fields = ("owner__username",)
    ordering = ("owner__username",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Quota]:
        quotas = super().get_queryset(request)
        return quotas.annotate(
            files=total(Tally.What.FILES) + _used_in_buckets(Tally.What.OBJECTS),
            bytes=total(Tally.What.BYTES) + _used_in_buckets(Tally.What.PARTS),
        )

    def get_fields(self, request: HttpRequest, obj: Quota | None = None) -> Any:
        return Limits.Meta.fields if obj is None else ("owner", "max_bytes", "max_files", "used_files", "used_bytes")

    def get_readonly_fields(self, request: HttpRequest, obj: Quota | None = None) -> Any:
        return () if obj is None else ("owner", "used_files", "used_bytes")

    def save_model(self, request: HttpRequest, obj: Quota, form: Any, change: bool) -> None:
        quotas.limit(obj.owner, max_bytes=obj.max_bytes, max_files=obj.max_files)

    def delete_model(self, request: HttpRequest, obj: Quota) -> None:
        _lift([obj.owner])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Quota]) -> None:
        _lift(quota.owner for quota in queryset)

    @admin.display(description="files stored")
    def used_files(self, quota: Quota) -> Any:
        return getattr(quota, "files", NOTHING)

    @admin.display(description="bytes stored")
    def used_bytes(self, quota: Quota) -> str:
        return size(getattr(quota, "bytes", 0))


def total(what: Tally.What) -> Coalesce:
    """An expression for a tally of each row in a query of buckets or of quotas. The id of a quota is its owner's."""
    amounts = Tally.objects.filter(what=what, key=OuterRef("pk")).values("key").annotate(total=Sum("amount"))
    return Coalesce(Subquery(amounts.values("total")), 0)


def _used_in_buckets(what: Tally.What) -> Coalesce:
    """An expression for the sum of a tally over all buckets of a quota's owner, for each row in a query of quotas."""
    buckets = Bucket.objects.filter(owner=OuterRef(OuterRef("pk"))).values("pk")
    amounts = Tally.objects.filter(what=what, key__in=buckets).values("what").annotate(total=Sum("amount"))
    return Coalesce(Subquery(amounts.values("total")), 0)


def _lift(owners: Iterable[User]) -> None:
    for owner in owners:
        quotas.limit(owner, max_bytes=None, max_files=None)
