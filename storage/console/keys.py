"""The user's keys, which programs use: list, make, rotate and revoke them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.urls import reverse

from storage.accounts.keys import USUAL
from storage.console.page import Page, reason
from storage.models import Scope

DAY = 86400
DURATIONS = (("", "No end"), (str(7 * DAY), "7 days"), (str(30 * DAY), "30 days"), (str(365 * DAY), "1 year"))
SCOPES: Mapping[str, str] = {
    Scope.READ: "List and download files",
    Scope.WRITE: "Store, rename and share files",
    Scope.DELETE: "Delete files",
    Scope.ADMIN: "Operate the whole installation",
}


class KeysPage(Page):
    """The keys without their secrets, and the form for a new one. The answer to the form shows the new secret, once."""

    section = "keys"

    def get(self, request: Any) -> HttpResponse:
        return self._list()

    def post(self, request: Any) -> HttpResponse:
        document: dict[str, Any] = {
            "name": request.POST.get("name", "").strip(),
            "scopes": request.POST.getlist("scopes"),
        }
        if seconds := request.POST.get("expires_in"):
            document["expires_in"] = seconds
        answer = self.api.send("POST", "/keys", document)
        if not answer.is_good:
            return self._list(error=reason(answer), wanted=document)
        return self._list(new=answer.document)

    def _list(self, **more: Any) -> HttpResponse:
        answer = self.api.get("/keys")
        context = {
            "keys": answer.document.get("keys", []),
            "refusal": "" if answer.is_good else reason(answer),
            "scopes": [(name, text, name in USUAL) for name, text in SCOPES.items() if name in self.principal.scopes],
            "durations": DURATIONS,
            **more,
        }
        return self.show("console/keys.html", context)


class KeyPage(Page):
    """The question before a key is rotated or revoked."""

    section = "keys"

    def get(self, request: Any, key_id: str, name: str) -> HttpResponse:
        if name not in ("rotate", "revoke"):
            raise Http404
        return self.show("console/key.html", {"key_id": key_id, "name": name})

    def post(self, request: Any, key_id: str, name: str) -> HttpResponse:
        if name == "rotate":
            answer = self.api.send("POST", f"/keys/{key_id}/rotate")
            if answer.is_good:
                return self.show("console/new_key.html", {"new": answer.document})
        else:
            answer = self.api.send("DELETE", f"/keys/{key_id}")
            if answer.is_good:
                messages.success(request, f"{key_id} opens nothing any more.")
        if not answer.is_good:
            messages.error(request, f"The key did not change: {reason(answer)}.")
        return self.go_to(reverse("console:keys"))
