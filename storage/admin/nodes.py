from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat

from storage.admin.operations import NoHandEdits
from storage.exceptions import InvalidRequest
from storage.models import Job, Node
from storage.services import audit, drain, provision, retire

FINDINGS = ("corrupt", "unreadable", "short", "lost", "surplus", "orphans", "leftovers")


class NewNode(forms.ModelForm[Node]):
    """The form in which an operator adds a node."""

    refusal: InvalidRequest | None = None

    class Meta:
        model = Node
        fields = ("url", "zone")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["url"].required = False
        self.fields["url"].help_text = "such as file:///srv/disk6; left empty, a folder beside the others'"

    def clean(self) -> dict[str, Any] | None:
        if self.refusal:
            raise ValidationError(self.refusal.errors or str(self.refusal))
        return super().clean()


@admin.register(Node)
class NodeAdmin(NoHandEdits[Node]):
    list_display = (
        "node_id",
        "condition",
        "online_changed_at",
        "chunks",
        "size",
        "weight",
        "zone",
        "audited_at",
        "verdict",
        "foreign_writes",
        "url",
    )
    list_filter = ("state", "online", "zone")
    search_fields = ("node_id", "url")
    actions = ("audit_nodes", "drain_nodes", "retire_nodes")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        audits = Job.objects.filter(kind=Job.Kind.AUDIT, subject=OuterRef("node_id"), state__in=Job.TERMINAL)
        last = audits.order_by("-finished_at")
        nodes: QuerySet[Node] = super().get_queryset(request)
        return nodes.annotate(
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
        return super().get_fields(request, obj) if obj is not None else NewNode.Meta.fields

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the form, and add the node that it asks for.

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
                self.message_user(request, f"{node} was added")
                return self.response_post_save_add(request, node)
        return super().add_view(request, form_url, extra_context)

    @admin.action(description="Audit: compare with what it should hold, read all of it", permissions=["operate"])
    def audit_nodes(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        self.carry_out(request, queryset, lambda node: audit.request(node.node_id))

    @admin.action(description="Drain: empty it and take it out of the cluster", permissions=["operate"])
    def drain_nodes(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        self.carry_out(request, queryset, lambda node: drain.request(node.node_id))

    @admin.action(description="Retire: give up a node whose disk is dead", permissions=["operate"])
    def retire_nodes(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        self.carry_out(request, queryset, lambda node: retire.retire(node.node_id))

    @admin.display(ordering="bytes")
    def size(self, node: Node) -> str:
        return filesizeformat(node.bytes)

    @admin.display(description="last audit", ordering="audit_ended")
    def audited_at(self, node: Node) -> Any:
        return getattr(node, "audit_ended", None)

    @admin.display(description="which found")
    def verdict(self, node: Node) -> str:
        """The number of each finding of the last audit; only the audit's state if it was cancelled or failed."""
        state = getattr(node, "audit_state", None)
        if state != Job.State.SUCCEEDED:
            return state or "—"
        result: Mapping[str, int] = getattr(node, "audit_result", None) or {}
        return ", ".join(f"{result[name]} {name}" for name in FINDINGS if result.get(name)) or "all well"
