from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from storage.accounts import keys
from storage.admin.columns import NOTHING, elided, moment, shown
from storage.admin.operations import Page
from storage.exceptions import NoSuchKey
from storage.models import Key, KeyLimit, Scope, clock

MADE = "occ.made_key"  # The request's environ has the new key under this name.


class NewKey(forms.ModelForm[Key]):
    """The form in which an operator makes a key."""

    scopes = forms.TypedMultipleChoiceField(
        coerce=Scope, choices=Scope.choices, initial=keys.USUAL, widget=forms.CheckboxSelectMultiple
    )

    class Meta:
        model = Key
        fields = ("owner", "name", "scopes", "bucket", "prefix", "expires_at")
        labels = {"expires_at": "Expires"}  # noqa: RUF012  as in Django's documentation

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        owner = self.fields.get("owner")
        if isinstance(owner, forms.ModelChoiceField):
            owner.queryset = User.objects.filter(is_active=True)  # The user ``nobody`` is not active.

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if reason := keys.fault_of_name(name):
            raise ValidationError(reason)
        return name

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        limit = KeyLimit(cleaned.get("bucket", ""), cleaned.get("prefix", ""))
        if (limit.bucket or limit.prefix) and (reason := keys.fault_of_limit(limit)):
            raise ValidationError({"bucket": reason})
        return cleaned


def when(time: datetime | None) -> str:
    return moment(time) if time else "never"


@admin.register(Key)
class KeyAdmin(Page[Key]):
    """The keys, without their secrets. A key is made, rotated and revoked, and never edited."""

    form = NewKey
    list_display = (
        shown("id", "key"),
        "owner",
        shown("name", "name", lambda name: elided(name or NOTHING)),
        shown("scopes", "scopes"),
        "opens",
        "state",
        shown("last_used_at", "last used", when),
        shown("expires_at", "expires", when),
    )
    list_filter = ("owner",)
    list_select_related = ("owner",)
    search_fields = ("id", "name", "owner__username")
    ordering = ("-created_at",)
    actions = ("rotate", "revoke")

    def get_fields(self, request: HttpRequest, obj: Key | None = None) -> Any:
        if obj is None:
            return NewKey.Meta.fields
        return (*self.list_display, shown("created_at", "made"), shown("revoked_at", "revoked"))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow filters by owner only. Filters on the digests of secrets would disclose them bit by bit."""
        return lookup.partition("__")[0] == "owner"

    def has_change_permission(self, request: HttpRequest, obj: Key | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Key | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """True if the user may start the actions that have ``permissions=["revoke"]``."""
        return super().has_change_permission(request)

    def save_model(self, request: HttpRequest, obj: Key, form: Any, change: bool) -> None:
        chosen = form.cleaned_data
        new = keys.create(obj.owner, scopes=chosen["scopes"], name=obj.name, expires_at=obj.expires_at, limit=obj.limit)
        obj.pk = new.key.pk
        request.META[MADE] = new

    def response_add(self, request: HttpRequest, obj: Key, post_url_continue: str | None = None) -> HttpResponse:
        return self._show(request, [request.META[MADE]])

    @admin.action(description="Rotate: give the key a new secret", permissions=["revoke"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[Key]) -> HttpResponse | None:
        rotated = []
        for key in queryset:
            try:
                rotated.append(keys.rotate(key.pk))
            except NoSuchKey as error:
                self.message_user(request, str(error), messages.ERROR)
        return self._show(request, rotated) if rotated else None

    @admin.action(description="Revoke: the key opens nothing any more", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[Key]) -> None:
        for key in queryset:
            try:
                keys.revoke(key.pk)
            except NoSuchKey as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{key.pk} opens nothing any more")

    @admin.display(description="opens")
    def opens(self, key: Key) -> str:
        return f"{key.bucket}/{elided(key.prefix)}" if key.bucket else "all"

    @admin.display(description="state")
    def state(self, key: Key) -> str:
        return key.state(clock.now())

    def _show(self, request: HttpRequest, new: Sequence[keys.NewKey]) -> HttpResponse:
        """A page with the secrets of new keys. The secrets are in no cookie, on no other page and in no cache."""
        title = "A new key" if len(new) == 1 else "New keys"
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": title, "new": new}
        response = TemplateResponse(request, "admin/storage/secrets.html", context)
        response["Cache-Control"] = "no-store"
        return response
