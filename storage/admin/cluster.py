from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from storage.admin.operations import NoHandEdits
from storage.models import Cluster
from storage.services import adopt, rebalance_all, reclaim, repair
from storage.services.adopt import Unknown


@admin.register(Cluster)
class ClusterAdmin(NoHandEdits[Cluster]):
    list_display = ("uuid", "num_nodes", "n_prime", "tau", "topology_epoch", "created_at")
    exclude = ("sketch_seed",)
    actions = ("repair_all", "rebalance_all", "reclaim", "adopt_and_keep", "adopt_and_condemn")

    @admin.action(description="Repair: make the copies that are missing", permissions=["operate"])
    def repair_all(self, request: HttpRequest, queryset: QuerySet[Cluster]) -> None:
        self.carry_out(request, queryset, lambda _: repair.request_all())

    @admin.action(description="Rebalance: move the copies that are misplaced", permissions=["operate"])
    def rebalance_all(self, request: HttpRequest, queryset: QuerySet[Cluster]) -> None:
        self.carry_out(request, queryset, lambda _: rebalance_all.request())

    @admin.action(
        description="Adopt: go on with this database, keep the chunks that it does not know", permissions=["operate"]
    )
    def adopt_and_keep(self, request: HttpRequest, queryset: QuerySet[Cluster]) -> None:
        self.carry_out(request, queryset, lambda _: adopt.request(Unknown.KEEP))

    @admin.action(
        description="Adopt: go on with this database, remove the chunks that it does not know", permissions=["operate"]
    )
    def adopt_and_condemn(self, request: HttpRequest, queryset: QuerySet[Cluster]) -> None:
        self.carry_out(request, queryset, lambda _: adopt.request(Unknown.CONDEMN))

    @admin.action(description="Reclaim: remove what no file has any more", permissions=["operate"])
    def reclaim(self, request: HttpRequest, queryset: QuerySet[Cluster]) -> None:
        self.carry_out(request, queryset, lambda _: reclaim.request())
