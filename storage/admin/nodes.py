from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse

from storage import plans
from storage.admin.columns import NOTHING, moment, shown, size
from storage.admin.operations import Asked, NoHandEdits
from storage.exceptions import InvalidRequest
from storage.models import Job, Node
from storage.services import audit, drain, provision, retire
from storage.services.nodes import FINDINGS

NODE = shown("node_id", "node")
SINCE = shown("online_changed_at", "online or offline since")
COPIES = shown("chunks", "copies")
STORED = shown("bytes", "stored", size)  # The plain bytes; a compressed copy takes fewer on its disk.
WEIGHT = shown("weight", "weight")
ZONE = shown("zone", "zone")

DRAIN: Asked[Node] = Asked(
    "Drain",
    "From now on the node takes no copies. Every chunk on it gets another copy elsewhere, and when the node is empty, "
    "it is retired for good.",
    lambda node: plans.of_drain(drain.plan(node.node_id)),
    lambda node: drain.request(node.node_id),
)
RETIRE: Asked[Node] = Asked(
    "Retire",
    "The node is given up and never comes back, even if its disk does. The chunks that it held are copied again from "
    "the other nodes.",
    lambda node: plans.of_retirement(node.node_id, retire.plan(node.node_id)),
    lambda node: retire.retire(node.node_id),
)


class NewNode(forms.ModelForm[Node]):
    """The form in which an operator adds a node."""

    refusal: InvalidRequest | None = None

    class Meta:
        model = Node
        fields = ("url", "zone")
        labels = {"url": "Address"}  # noqa: RUF012  as in Django's documentation
        help_texts = {  # noqa: RUF012
            "url": "Such as pack:///srv/disk6. Without an address, the volume is made in a folder next to those of the "
            "other nodes.",
            "zone": "A name that nodes share when they can fail together. Copies go to distinct zones first.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["url"].required = False

    def clean(self) -> dict[str, Any] | None:
        if self.refusal:
            raise ValidationError(self.refusal.errors or str(self.refusal))
        return super().clean()


@admin.register(Node)
class NodeAdmin(NoHandEdits[Node]):
    list_display = (NODE, "state_in_words", SINCE, COPIES, STORED, "on_disk", WEIGHT, ZONE, "audited_at", "verdict")
    list_filter = ("state", "online", "zone")
    fields: ClassVar[Any] = (
        NODE,
        shown("url", "address"),
        "state_in_words",
        SINCE,
        ZONE,
        COPIES,
        STORED,
        "on_disk",
        WEIGHT,
        shown("file_system", "file system"),
        shown("file_system_bytes", "size of the file system", lambda count: size(count) if count else NOTHING),
        "audited_at",
        "verdict",
        shown("foreign_writes", "written to under another database", lambda value: "yes" if value else "no"),
        shown("generation", "last generation"),
        shown("sketch_epoch", "writes that were not counted"),
        shown("uuid", "id of the volume"),
        shown("created_at", "made"),
    )
    search_fields = ("node_id", "url")
    actions = ("audit_nodes", "drain_nodes", "retire_nodes")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        audits = Job.objects.filter(kind=Job.Kind.AUDIT, subject=OuterRef("node_id"), state__in=Job.TERMINAL)
        last = audits.order_by("-finished_at")
        censuses = Job.objects.filter(kind=Job.Kind.CENSUS, state=Job.State.SUCCEEDED).order_by("-finished_at")
        nodes: QuerySet[Node] = super().get_queryset(request)
        return nodes.annotate(
            census_stored=Subquery(censuses.values("result__stored")[:1]),
            audit_ended=Subquery(last.values("finished_at")[:1]),
            audit_state=Subquery(last.values("state")[:1]),
            audit_result=Subquery(last.values("result")[:1]),
        )

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        return self.has_operate_permission(request)

    def get_form(self, request: HttpRequest, obj: Node | None = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None:
            return super().get_form(request, obj, change, **kwargs)
        return type("NewNode", (NewNode,), {"refusal": getattr(request, "refusal", None)})

    def get_fields(self, request: HttpRequest, obj: Node | None = None) -> Any:
        return self.fields if obj is not None else NewNode.Meta.fields

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the form for a new node; after a POST of the form, add the node.

        The node is added outside the transaction in which Django saves a form, because its row must be committed before
        its volume is made (RACES 20).
        """
        form = NewNode(request.POST)
        if request.method == "POST" and self.has_add_permission(request) and form.is_valid():
            try:
                node = provision.add(form.cleaned_data["url"], form.cleaned_data["zone"])
            except InvalidRequest as refusal:
                request.refusal = refusal  # type: ignore[attr-defined]
            else:
                self.log_addition(request, node, [{"added": {}}])
                self.message_user(request, f"The node {node} was added")
                return self.response_post_save_add(request, node)
        return super().add_view(request, form_url, extra_context)

    @admin.action(description="Audit: compare with what it should hold, read all of it", permissions=["operate"])
    def audit_nodes(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        self.carry_out(request, queryset, lambda node: audit.request(node.node_id))

    @admin.action(description="Drain: empty it and take it out of the cluster", permissions=["operate"])
    def drain_nodes(self, request: HttpRequest, queryset: QuerySet[Node]) -> HttpResponse | None:
        return self.ask_first(request, queryset, DRAIN)

    @admin.action(description="Retire: give up a node whose disk is dead", permissions=["operate"])
    def retire_nodes(self, request: HttpRequest, queryset: QuerySet[Node]) -> HttpResponse | None:
        return self.ask_first(request, queryset, RETIRE)

    @admin.display(description="state", ordering="state")
    def state_in_words(self, node: Node) -> str:
        return f"{node.condition}, foreign writes" if node.foreign_writes else node.condition

    @admin.display(description="on disk")
    def on_disk(self, node: Node) -> str:
        """The bytes that the node's copies took on its disk at the last census."""
        stored: Mapping[str, int] = getattr(node, "census_stored", None) or {}
        return size(stored[node.node_id]) if node.node_id in stored else NOTHING

    @admin.display(description="last audit", ordering="audit_ended")
    def audited_at(self, node: Node) -> str:
        return moment(getattr(node, "audit_ended", None))

    @admin.display(description="found by the last audit")
    def verdict(self, node: Node) -> str:
        """The numbers that the last audit found; only the audit's state if it was cancelled or failed."""
        state = getattr(node, "audit_state", None)
        if state != Job.State.SUCCEEDED:
            return state or NOTHING
        result: Mapping[str, int] = getattr(node, "audit_result", None) or {}
        return ", ".join(f"{result[name]} {name}" for name in FINDINGS if result.get(name)) or "all well"
