"""Who did what, and when."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse

from storage.console import words
from storage.console.page import Page, cursor_in

PAGE_SIZE = 50


class ActivityPage(Page):
    """What was done to the user's files, links, keys and jobs; for admins, everything that was done."""

    section = "activity"

    def get(self, request: Any) -> HttpResponse:
        action = request.GET.get("action", "")
        action = action if action in words.ACTIONS else ""
        cursor = request.GET.get("cursor", "")
        found = self.need(self.api.get("/activity", limit=PAGE_SIZE, action=action, cursor=cursor))
        following = cursor_in(found["next"])
        context = {
            "acts": [(act, words.act(act)) for act in found["activity"]],
            "actions": words.ACTIONS,
            "action": action,
            "following": following and urlencode({"action": action, "cursor": following}),
        }
        return self.show("console/activity.html", context)
