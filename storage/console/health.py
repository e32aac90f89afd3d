"""The page about the whole installation: whether it works, since when it does not, and the figures behind that."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.http import HttpResponse
from django.utils import timezone

from storage.console import plots, timelines, words
from storage.console.page import Page
from storage.models import Scope

DRAWN = 40  # A heat map of more nodes cannot be read.
HEADLINES: Mapping[str, tuple[str, str]] = {
    "healthy": ("good", "Everything works"),
    "degraded": ("warn", "Files can be stored and read, but something needs attention"),
    "unhealthy": ("bad", "Files cannot be stored or read right now"),
}
ALL_WELL = "Every node answers, every file has its copies, and nothing is waiting."
SPANS = {"1": "Hour", "24": "Day", "168": "Week", "720": "Month"}
A_DAY = "24"


class HealthPage(Page):
    """One sentence on whether everything works, what to do if not, and for admins the figures behind it."""

    section = "health"

    def get(self, request: Any) -> HttpResponse:
        health = self.api.get("/health").document
        level, headline = HEADLINES.get(health.get("status", ""), ("bad", "The state is not known"))
        troubles = health.get("troubles") or ()
        begun = [since for trouble in troubles if (since := words.moment(trouble["since"]))]
        context = {
            "level": level,
            "headline": headline,
            "since": min(begun, default=None),
            "troubles": [_told(trouble) for trouble in troubles],
            "all_well": ALL_WELL,
            "nodes": health.get("nodes"),
        }
        if request.headers.get("HX-Target") == "verdict":
            return self.show("console/parts/verdict.html", context)
        if Scope.ADMIN in self.principal.scopes:
            context |= self._figures()
        return self.show("console/health.html", context)

    def _figures(self) -> dict[str, Any]:
        answer = self.api.get("/status")
        if not answer.is_good:
            return {}
        status = answer.document
        hours = self.request.GET.get("hours", A_DAY)
        hours = hours if hours in SPANS else A_DAY
        history = self.api.get("/history", hours=hours)
        census = status["on_disk"]["census"]
        samples = history.document["samples"] if history.is_good else []
        found: dict[str, Any] = {
            "status": status,
            "census": census,
            "counted_average": census["copies"] / census["chunks"] if census and census["chunks"] else None,
            "spans": SPANS,
            "hours": hours,
            "timelines": timelines.of(samples, timezone.now(), int(hours)),
        }
        if status["estimates"]:
            rows = status["estimates"]["spectrum"]
            found["spectrum"] = plots.spectrum(rows, status["config"]["replication_factor"])
        if status["overlap"] and len(status["overlap"]["nodes"]) <= DRAWN:
            found["overlap"] = plots.overlap(status["overlap"])
            found["bound"] = status["overlap"]["bound"]
        return found


def _told(trouble: Mapping[str, Any]) -> tuple[str, str, str, datetime | None]:
    """A trouble as the page tells it: its level, what is wrong, what to do, and since when."""
    wrong, remedy = words.trouble(trouble["text"])
    return "bad" if trouble["failing"] else "warn", wrong, remedy, words.moment(trouble["since"])
