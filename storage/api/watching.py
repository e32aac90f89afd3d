"""The views for programs that watch the service."""

from __future__ import annotations

from django.http import HttpResponse
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response

from storage.api.downloads.answer import AnyAccept
from storage.api.endpoint import Endpoint
from storage.api.metrics import exposition
from storage.api.rendering import JsonRenderer
from storage.api.schema import answers
from storage.api.schema.operations import Reply, describe
from storage.api.views import HealthView
from storage.conf import VERSION


class LiveView(Endpoint):
    """Tells that the process answers, and asks nothing else: `/readyz` tells whether the service can serve."""

    @describe("Tell that the process answers", {200: Reply("it answers", answers.Live)})
    def get(self, request: Request) -> Response:
        return Response({"status": "alive"})


class ReadyView(HealthView):
    """Tells the same as `/health`, under the name that Kubernetes and others use."""

    @describe(
        "Check the readiness",
        {
            200: Reply("uploads and downloads are served", answers.Health),
            503: Reply("one of them is refused now", answers.Health, ("Retry-After",)),
        },
    )
    def get(self, request: Request) -> Response:
        return super().get(request)


class VersionView(Endpoint):
    """The version of the service."""

    @describe("Show the version", {200: Reply("the version", answers.Version)})
    def get(self, request: Request) -> Response:
        return Response({"version": VERSION})


class MetricsView(Endpoint):
    """The metrics of the service, in the text format of Prometheus."""

    content_negotiation_class: type[BaseContentNegotiation] = AnyAccept
    renderer_classes = (JsonRenderer,)  # Problems are JSON. The metrics are text, whatever a client accepts.

    @describe("Show the metrics", {200: Reply("metrics for Prometheus", {"type": "string"}, media_type="text/plain")})
    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(exposition.text(), content_type=exposition.CONTENT_TYPE)
