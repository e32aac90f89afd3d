"""The schema itself, and the page that shows it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.http import HttpResponse
from django.urls import get_script_prefix
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiYamlRenderer2
from rest_framework.renderers import BaseRenderer, TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from storage.api.endpoint import Endpoint
from storage.api.rendering import JsonRenderer
from storage.api.schema.operations import Reply, describe
from storage.conf import configuration

YAML = OpenApiYamlRenderer2.media_type


class SchemaView(Endpoint):
    """This description of the API (OpenAPI 3.1), as JSON, or as YAML for a client that accepts `application/yaml`."""

    renderer_classes: tuple[type[BaseRenderer], ...] = (JsonRenderer, OpenApiYamlRenderer2)

    @describe(
        "Describe the API",
        {
            200: (
                Reply("an OpenAPI document", {"type": "object"}),
                Reply("an OpenAPI document", {"type": "object"}, media_type=YAML),
            )
        },
    )
    def get(self, request: Request) -> HttpResponse:
        renderer: Any = request.accepted_renderer
        content = _rendered(renderer.__class__, get_script_prefix(), keys=configuration().auth_required)
        return HttpResponse(content, content_type=renderer.media_type)


class DocsView(Endpoint):
    """A page on which every request of the API can be read about and tried out."""

    renderer_classes: tuple[type[BaseRenderer], ...] = (TemplateHTMLRenderer,)
    template_name = "occ/docs.html"

    @describe("Read about the API", {200: Reply("a page", {"type": "string"}, media_type="text/html")})
    def get(self, request: Request) -> Response:
        return Response()


@lru_cache(maxsize=8)
def _rendered(renderer: Any, prefix: str, *, keys: bool) -> bytes:
    """The schema as a renderer writes it. Making the schema takes a tenth of a second, so each process makes it once.

    Args:
        renderer: the class of the renderer.
        prefix: the path under which the API is served; ``/`` if it is served at the root of its host.
        keys: True while requests need keys. The schema depends on ``keys``, so ``keys`` has to be an argument of this
            cached function.
    """
    document = SchemaGenerator().get_schema(public=True)
    document["servers"] = [{"url": prefix.rstrip("/") or "/"}]
    content: bytes = renderer().render(document)
    return content
