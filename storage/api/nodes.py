"""The nodes, for operators: list and show them, add one, audit, drain and retire one. Each act can be planned first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from storage.accounts.principals import Principal
from storage.api import documents, serializers
from storage.api.authorization import authorize, require_operator
from storage.api.endpoint import Endpoint
from storage.api.jobs import accepted
from storage.api.parameters import switch
from storage.api.schema import answers, examples, operating
from storage.api.schema.operations import Reply, describe
from storage.api.uploads.bodies import FieldsParser, FormParser, JSONParser
from storage.api.wsgi.transfers import transfer
from storage.exceptions import ClusterUnavailable, Forbidden, InvalidRequest, NotPossible, VolumeError
from storage.models import Job, Scope
from storage.services import audit, drain, nodes, provision, retire

DRY_RUN = "dry_run"
FOUND = ("bytes", "short", "lost", "surplus", "orphans", "leftovers")  # What the plan of an audit says, in this order.


class NodesView(Endpoint):
    """The nodes that are not retired. A `POST` adds a node: copies then move to it until it has its share.

    Without `url`, the node's volume is made in a folder next to those of the other nodes. With `?dry_run=true` the
    answer says what would be made, and nothing changes.
    """

    parameters = (DRY_RUN,)
    parser_classes = (JSONParser, FormParser, FieldsParser)

    def get_serializer(self, *args: Any, **kwargs: Any) -> serializers.NodeSerializer:
        return serializers.NodeSerializer(*args, **kwargs)

    @describe("List the nodes", {200: Reply("the nodes", operating.Nodes, example=examples.NODES)})
    def get(self, request: Request) -> Response:
        authorize(request.META).require(Scope.ADMIN)
        switch(request, DRY_RUN)  # A list changes nothing, with this parameter or without.
        found, census = nodes.views()
        return Response({"nodes": [documents.node(view, census) for view in found]})

    @describe(
        "Add a node",
        {
            200: Reply("the node that would be added", operating.NewNode, example=examples.NEW_NODE),
            201: Reply("the node", operating.Node, ("Location",), example=examples.NODE),
        },
        problems=("too_many_transfers",),
    )
    @transfer()
    def post(self, request: Request) -> Response:
        principal = _operator(request)
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        url, zone = form.validated_data["url"], form.validated_data["zone"]
        if url and principal.subject is None:
            raise Forbidden("while keys are off, a node is added without an address: see AUTH_REQUIRED")
        if switch(request, DRY_RUN):
            planned = provision.plan(url, zone)
            return Response({"node_id": planned.node_id, "url": planned.url, "zone": planned.zone or None})
        added = provision.add(url, zone)
        address = reverse("node", args=[added.node_id])
        body = documents.node(*nodes.view(added.node_id))
        return Response(body, status.HTTP_201_CREATED, headers={"Location": address})


class NodeView(Endpoint):
    """One node that is not retired, with its last audit and the work on it that has not ended."""

    @describe(
        "Show a node", {200: Reply("the node", operating.Node, example=examples.NODE)}, problems=("no_such_node",)
    )
    def get(self, request: Request, node_id: str) -> Response:
        authorize(request.META).require(Scope.ADMIN)
        return Response(documents.node(*nodes.view(node_id)))


def _replies(plan: Any, example: Mapping[str, Any]) -> dict[int, Reply]:
    job = Reply("the job", answers.JobEntry, ("Location", "Retry-After"), example=examples.JOB_QUEUED)
    return {200: Reply("the plan", plan, example=example), 202: job}


PROBLEMS: tuple[str, ...] = ("no_such_node", "not_possible", "cluster_unavailable", "too_many_transfers")


class AuditView(Endpoint):
    """Compare a node with what it should hold, and read and check every byte of it: a job does so.

    With `?dry_run=true` the node is compared without reading bytes, and nothing changes.
    """

    parameters = (DRY_RUN,)

    @describe("Audit a node", _replies(operating.AuditPlan, examples.AUDIT_PLAN), problems=PROBLEMS)
    @transfer()
    def post(self, request: Request, node_id: str) -> Response:
        return _operate(request, node_id, plan=_audit_plan, begin=audit.request)


class DrainView(Endpoint):
    """Empty a node and take it out of the cluster: a job does so. The node takes no copies from now on.

    With `?dry_run=true` the answer says how many copies have to move, and nothing changes.
    """

    parameters = (DRY_RUN,)

    @describe("Drain a node", _replies(operating.DrainPlan, examples.DRAIN_PLAN), problems=(*PROBLEMS, "out_of_space"))
    @transfer()
    def post(self, request: Request, node_id: str) -> Response:
        return _operate(request, node_id, plan=_drain_plan, begin=drain.request)


class RetireView(Endpoint):
    """Give up a node that does not answer and will not come back. A job makes its copies again on other nodes.

    With `?dry_run=true` the answer says how many contents cannot be read now, and nothing changes.
    """

    parameters = (DRY_RUN,)

    @describe("Retire a node", _replies(operating.RetirePlan, examples.RETIRE_PLAN), problems=PROBLEMS)
    @transfer()
    def post(self, request: Request, node_id: str) -> Response:
        return _operate(request, node_id, plan=_retire_plan, begin=retire.retire)


def _audit_plan(node_id: str) -> dict[str, Any]:
    planned = audit.plan(node_id)
    found = {name: planned.found.get(name, 0) for name in FOUND}
    return {"copies": planned.found.get("replicas", 0), **found, "seconds": round(planned.seconds)}


def _drain_plan(node_id: str) -> dict[str, Any]:
    planned = drain.plan(node_id)
    return {
        "copies": planned.replicas,
        "bytes": planned.bytes,
        "to_write": planned.to_write,
        "orphans": planned.orphans,
    }


def _retire_plan(node_id: str) -> dict[str, Any]:
    return {"unreadable": retire.plan(node_id)}


def _operate(
    request: Request, node_id: str, *, plan: Callable[[str], Mapping[str, Any]], begin: Callable[[str], Job]
) -> Response:
    """Plan or begin an operation on a node.

    Args:
        request: the request; with ``dry_run`` it asks for the plan.
        node_id: the node.
        plan: a function that returns what would be done: name → figure.
        begin: a function that begins the operation, and returns the job that does the work.
    """
    _operator(request)
    is_planned = switch(request, DRY_RUN)
    try:
        if is_planned:
            return Response({"node_id": node_id, **plan(node_id)})
        return accepted(begin(node_id))
    except InvalidRequest as error:  # The request is right; the state of the node does not allow it.
        raise NotPossible(str(error)) from None
    except VolumeError as error:
        raise ClusterUnavailable(str(error)) from None


def _operator(request: Request) -> Principal:
    """The principal that operates nodes. While keys are off, everybody may do so except a page of another site."""
    principal = authorize(request.META)
    require_operator(principal, "storage.change_node")
    return principal
