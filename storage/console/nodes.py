"""The nodes: what they hold, how they are, and what an operator does to them. A plan comes before each act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.urls import reverse
from django.utils import timezone

from storage.console import plots, words
from storage.console.page import Page, reason
from storage.console.work import described

FOREIGN = "Was written to under another database. An operator has to decide what becomes of that: manage.py adopt."
SURE = "sure"  # The field of a form that says that its user has seen the plan.


@dataclass(frozen=True)
class Operation:
    """Something that can be done to a node.

    Attributes:
        name: the last part of its address.
        entry: the words on the button that leads to its plan.
        question: the title of the plan, with the node in it.
        consequence: what happens.
        verb: the words on the button that confirms.
        is_grave: True if the operation cannot be undone.
    """

    name: str
    entry: str
    question: str
    consequence: str
    verb: str
    is_grave: bool = False


OPERATIONS: Mapping[str, Operation] = {
    "audit": Operation(
        "audit",
        "Check…",
        "Check {}?",
        "Everything on the node is read and compared with what should be there. Damaged and missing copies are made "
        "again by themselves. Uploads and downloads go on.",
        "Check it",
    ),
    "drain": Operation(
        "drain",
        "Empty…",
        "Empty {}?",
        "The node takes no copies from now on. Every part on it gets another copy elsewhere first. When the node is "
        "empty, it is taken out for good. Until then you can cancel.",
        "Empty it",
    ),
    "retire": Operation(
        "retire",
        "Give up…",
        "Give up {}?",
        "For a node whose disk is dead. It never comes back, even if its disk does. The copies that it had are made "
        "again from those on the other nodes.",
        "Give it up",
        is_grave=True,
    ),
}


class _ForNodes(Page):
    section = "nodes"
    for_admins = True


class NodesPage(_ForNodes):
    """The nodes: what they hold, how full they are, and their state in words."""

    def get(self, request: Any) -> HttpResponse:
        nodes = [_described(node) for node in self.need(self.api.get("/nodes"))["nodes"]]
        context = {
            "nodes": nodes,
            "stored": sum(node["bytes"] for node in nodes),
            "copies": sum(node["copies"] for node in nodes),
        }
        template = "console/parts/nodes.html" if request.headers.get("HX-Target") == "nodes" else "console/nodes.html"
        return self.show(template, context)


class NodePage(_ForNodes):
    """One node, with what is going on there and what can be done."""

    def get(self, request: Any, node_id: str) -> HttpResponse:
        node = _described(self.need(self.api.get(f"/nodes/{node_id}")))
        offered = {"retire"} if node["state"] == "offline" else {"audit"}
        offered |= {"drain"} if node["state"] in ("active", "full", "read-only") else set()
        context = {"node": node, "operations": [each for name, each in OPERATIONS.items() if name in offered]}
        template = "console/parts/node.html" if request.headers.get("HX-Target") == "node" else "console/node.html"
        return self.show(template, context)


class OperationPage(_ForNodes):
    """The plan of an operation on a node, and its confirmation."""

    def get(self, request: Any, node_id: str, name: str) -> HttpResponse:
        answer = self.api.plan(f"/nodes/{node_id}/{name}")
        if answer.status == 404:
            self.need(answer)
        context = {
            "operation": OPERATIONS[name],
            "node_id": node_id,
            "question": OPERATIONS[name].question.format(node_id),
            "refusal": "" if answer.is_good else reason(answer),
            "plan": words.node_plan(name, answer.document) if answer.is_good else [],
        }
        return self.show("console/operation.html", context)

    def post(self, request: Any, node_id: str, name: str) -> HttpResponse:
        answer = self.api.send("POST", f"/nodes/{node_id}/{name}")
        if answer.is_good:
            return self.go_to(reverse("console:job", args=[answer.document["id"]]))
        messages.error(request, f"Nothing was done: {reason(answer)}.")
        return self.go_to(reverse("console:node", args=[node_id]))

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs["name"] not in OPERATIONS:
            raise Http404
        return super().dispatch(request, *args, **kwargs)


class AddPage(_ForNodes):
    """The form for a new node, then what would be made, then its confirmation."""

    def get(self, request: Any) -> HttpResponse:
        return self.show("console/add_node.html", {"has_keys": self.principal.subject is not None})

    def post(self, request: Any) -> HttpResponse:
        wanted = {name: request.POST.get(name, "").strip() for name in ("url", "zone")}
        is_sure = request.POST.get(SURE) == "yes"
        answer = self.api.send("POST", "/nodes", wanted, dry_run="" if is_sure else "true")
        if answer.is_good and is_sure:
            node_id = answer.document["node_id"]
            messages.success(request, f"{node_id} is there. Copies move to it until it has its share.")
            return self.go_to(reverse("console:nodes"))
        context = {
            "has_keys": self.principal.subject is not None,
            "wanted": wanted,
            "error": "" if answer.is_good else reason(answer),
            "plan": answer.document if answer.is_good else None,
        }
        return self.show("console/add_node.html", context)


def _described(node: Mapping[str, Any]) -> dict[str, Any]:
    """The API's document of a node, with its state in words, the bar of its disk, and its jobs as pages show them."""
    level, sentence = words.NODE_STATES.get(node["state"], ("warn", ""))
    if node["foreign_writes"]:
        level, sentence = "bad", FOREIGN
    now = timezone.now()
    return {
        **node,
        "level": level,
        "sentence": sentence,
        "bar": plots.fill(node["bytes"], node["disk_bytes"], node["free_bytes"]),
        "jobs": [described(job, now) for job in node["jobs"]],
        "findings": words.findings(node["audit"]) if node["audit"] else "",
    }
