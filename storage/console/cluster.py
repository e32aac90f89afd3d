"""The pages about the whole installation: whether it works, and its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse

from storage.console import plots, words
from storage.console.page import Page
from storage.models import Scope

DRAWN = 40  # A heat map of more nodes cannot be read.
HEADLINES: Mapping[str, tuple[str, str]] = {
    "healthy": ("good", "Everything works"),
    "degraded": ("warn", "Files can be stored and read, but something needs attention"),
    "unhealthy": ("bad", "Files cannot be stored or read right now"),
}
FOREIGN = "Was written to under another database. An operator has to decide what becomes of that: manage.py adopt."
ALL_WELL = "Every node answers, every file has its copies, and nothing is waiting."


class HealthPage(Page):
    """One sentence on whether everything works, what to do if not, and for admins the figures behind it."""

    section = "health"

    def get(self, request: Any) -> HttpResponse:
        health = self.api.get("/health").document
        level, headline = HEADLINES.get(health.get("status", ""), ("bad", "The state is not known"))
        troubles = [("bad", text) for text in (health.get("failing") or {}).values()]
        troubles += [("warn", text) for text in health.get("degraded") or ()]
        context = {
            "level": level,
            "headline": headline,
            "troubles": [(each, *words.trouble(text)) for each, text in troubles],
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
        found: dict[str, Any] = {"status": status, "census": status["on_disk"]["census"]}
        if status["estimates"]:
            rows = status["estimates"]["spectrum"]
            found["spectrum"] = plots.spectrum(rows, status["config"]["replication_factor"])
        if status["overlap"] and len(status["overlap"]["nodes"]) <= DRAWN:
            found["overlap"] = plots.overlap(status["overlap"])
            found["bound"] = status["overlap"]["bound"]
        return found


class NodesPage(Page):
    """The nodes: what they hold, how full they are, and their state in words."""

    section = "nodes"
    for_admins = True

    def get(self, request: Any) -> HttpResponse:
        status = self.need(self.api.get("/status"))
        nodes = []
        for node in status["nodes"]:
            level, sentence = words.NODE_STATES.get(node["state"], ("warn", ""))
            if node["foreign_writes"]:
                level, sentence = "bad", FOREIGN
            bar = plots.fill(node["size_mb"], node["disk_mb"], node["free_mb"])
            nodes.append({**node, "level": level, "sentence": sentence, "bar": bar})
        template = "console/parts/nodes.html" if request.headers.get("HX-Target") == "nodes" else "console/nodes.html"
        return self.show(template, {"nodes": nodes, "status": status})
