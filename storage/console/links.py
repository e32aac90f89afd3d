"""All share links to the user's files, in one list."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.urls import reverse

from storage.console.names import Named
from storage.console.page import Page, cursor_in, reason

PAGE_SIZE = 50


class LinksPage(Page):
    """The links that open something now, the newest first; each can be copied and revoked."""

    section = "links"

    def get(self, request: Any) -> HttpResponse:
        found = self.need(self.api.get("/links", limit=PAGE_SIZE, cursor=request.GET.get("cursor", "")))
        links = [(link, Named.of(link)) for link in found["links"]]
        return self.show("console/links.html", {"links": links, "following": cursor_in(found["next"])})

    def post(self, request: Any) -> HttpResponse:
        link_id = request.POST.get("revoke", "").replace("/", "") or "none"
        answer = self.api.send("DELETE", f"/links/{link_id}")
        if answer.is_good:
            messages.success(request, "The link is revoked. It opens nothing any more.")
        else:
            messages.error(request, f"The link did not change: {reason(answer)}.")
        return self.go_to(reverse("console:links"))
