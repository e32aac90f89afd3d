from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from storage import plans
from storage.admin.columns import shown
from storage.admin.operations import Asked, NoHandEdits
from storage.conf import configuration
from storage.models import Cluster
from storage.services import adopt, rebalance_all, reclaim, repair
from storage.services.adopt import Unknown

ID = shown("uuid", "id")
NODES = shown("num_nodes", "nodes (NUM_NODES)")
REGISTERS = shown("n_prime", "registers of a sketch (N')")
TAU = shown("tau", "a register counts up to (τ)")
MADE = shown("created_at", "made")


def adoption(unknown: Unknown, consequence: str) -> Asked[Cluster]:
    return Asked(
        "Adopt",
        f"The service goes on with this database, and may remove copies again. {consequence} To go back to the newer "
        "database instead, cancel, and put it in the place of this one.",
        lambda _: plans.of_adoption(adopt.plan()),
        lambda _: adopt.request(unknown),
        "Adopt the volumes?",
    )


REBALANCE: Asked[Cluster] = Asked(
    "Rebalance",
    "Every misplaced copy is moved to the node where placement puts it. The new copy is made before the old one goes.",
    lambda _: plans.of_cluster_rebalance(rebalance_all.plan()),
    lambda _: rebalance_all.request(),
    "Rebalance the cluster?",
)
RECLAIM: Asked[Cluster] = Asked(
    "Reclaim",
    "The copies of chunks that no file has any more go to the trash, and the trash is emptied, as far as RECLAIM_GRACE "
    "allows. The service does the same by itself every 30 seconds.",
    lambda _: plans.of_reclaim(reclaim.preview(configuration().reclaim_grace)),
    lambda _: reclaim.request(),
    "Reclaim the space of deleted files?",
)
KEEP = adoption(Unknown.KEEP, "Chunks that the database does not know stay on the volumes.")
CONDEMN = adoption(
    Unknown.CONDEMN,
    "Chunks that the database does not know are removed after RECLAIM_GRACE, and so are those that were kept earlier.",
)


@admin.register(Cluster)
class ClusterAdmin(NoHandEdits[Cluster]):
    list_display = (ID, NODES, REGISTERS, TAU, MADE)
    fields: ClassVar[Any] = (
        ID,
        NODES,
        REGISTERS,
        shown("base_n_prime", "registers at the first start (N_PRIME)"),
        TAU,
        shown("topology_epoch", "changes of a node's state"),
        shown("rebalanced_at", "begin of the last complete rebalance"),
        shown("gathered_since", "copies found gathered on few nodes since"),
        MADE,
    )
    actions = ("repair_all", "rebalance_all", "reclaim", "adopt_and_keep", "adopt_and_condemn")

    def called(self, row: Cluster) -> str:
        return "the cluster"

    @admin.action(description="Repair: make the copies that are missing", permissions=["operate"])
    def repair_all(self, request: HttpRequest, queryset: QuerySet[Cluster]) -> None:
        self.carry_out(request, queryset, lambda _: repair.request_all())

    @admin.action(description="Rebalance: move the copies that are misplaced", permissions=["operate"])
    def rebalance_all(self, request: HttpRequest, queryset: QuerySet[Cluster]) -> HttpResponse | None:
        return self.ask_first(request, queryset, REBALANCE)

    @admin.action(
        description="Adopt: go on with this database, keep the chunks that it does not know", permissions=["operate"]
    )
    def adopt_and_keep(self, request: HttpRequest, queryset: QuerySet[Cluster]) -> HttpResponse | None:
        return self.ask_first(request, queryset, KEEP)

    @admin.action(
        description="Adopt: go on with this database, remove the chunks that it does not know", permissions=["operate"]
    )
    def adopt_and_condemn(self, request: HttpRequest, queryset: QuerySet[Cluster]) -> HttpResponse | None:
        return self.ask_first(request, queryset, CONDEMN)

    @admin.action(description="Reclaim: remove what no file has any more", permissions=["operate"])
    def reclaim(self, request: HttpRequest, queryset: QuerySet[Cluster]) -> HttpResponse | None:
        return self.ask_first(request, queryset, RECLAIM)
