"""The renderer of the pages, and the page of a problem that no view has answered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from django.core.handlers.wsgi import get_path_info
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template import loader
from django.templatetags.static import static
from django.urls import get_script_prefix
from django.utils.encoding import escape_uri_path
from rest_framework.renderers import BrowsableAPIRenderer, HTMLFormRenderer

from storage.api.pages import markup
from storage.conf import configuration

TEMPLATE, FIELDS = "occ/page.html", "occ/fields"
READS = ("GET", "HEAD")
CONTACT_LASTS = timedelta(days=180)  # The time for which a reader may rely on security.txt, from today on.
WITHOUT_FORMS = (204, 401, 403, 404)  # After these answers there is nothing that a form could change.
ABOUT_A_FILE = (("Show", "files"), ("Download", "download"), ("Verify", "verify"), ("Rebalance", "rebalance"))


class PageRenderer(BrowsableAPIRenderer):
    """DRF's browsable renderer with the page of OCC Storage. A form sends the serializer's fields; there are no raw
    forms.

    The ``heading`` of a view replaces its name.
    """

    template = TEMPLATE

    def get_context(self, data: Any, accepted_media_type: str | None, renderer_context: Any) -> dict[str, Any]:
        view, request, response = (renderer_context[name] for name in ("view", "request", "response"))
        status = response.status_code
        is_unreadable = status >= 400 and request.method in READS
        has_forms = status not in WITHOUT_FORMS and not is_unreadable
        context = _context(request.method, request.get_full_path(), status, data, dict(sorted(response.items())))
        if not is_unreadable:
            context["name"] = getattr(view, "heading", None) or self.get_name(view)
            context["description"] = markup.described(view.get_view_description())
        if "file_hash" in view.kwargs and has_forms:
            context["links"] = _links(view.kwargs["file_hash"], request.path)
        if status == 204:
            context["done"] = getattr(view, "done", None)
        if has_forms:
            context["post_form"] = self._form("POST", view, data)
            context["patch_form"] = self._form("PATCH", view, data)
            context["has_delete"] = "DELETE" in view.allowed_methods
        return context

    def _form(self, method: str, view: Any, shown: Any) -> Any:
        """The fields of the form for ``method``. The fields have the present values if the page shows all of them."""
        if method not in view.allowed_methods or not hasattr(view, "get_serializer"):
            return None
        form = view.get_serializer()
        if isinstance(shown, Mapping) and form.fields.keys() <= shown.keys():
            form = view.get_serializer(instance=shown)
        return HTMLFormRenderer().render(form.data, None, {"style": {"template_pack": FIELDS}})


def wants_page(environ: Mapping[str, Any]) -> bool:
    """True if a client asks for HTML, as browsers do when they open an address, and does not ask for JSON."""
    accepted = environ.get("HTTP_ACCEPT", "")
    return "text/html" in accepted and "application/json" not in accepted


def problem_page(environ: Mapping[str, Any], problem: Mapping[str, Any], headers: Mapping[str, str]) -> HttpResponse:
    """The page of a problem that no view with a renderer has answered.

    No cache may keep the page: the same address gives JSON to other clients, in answers without a Vary.
    """
    path = get_script_prefix().rstrip("/") + escape_uri_path(get_path_info(dict(environ)))
    context = _context(environ["REQUEST_METHOD"], path, problem["status"], problem, headers)
    fields = {**headers, "Cache-Control": "no-store", "Vary": "Accept"}
    return HttpResponse(loader.render_to_string(TEMPLATE, context), status=problem["status"], headers=fields)


def icon(request: HttpRequest) -> HttpResponse:
    """Redirect to the icon. Browsers look for an icon at the address of this view even if no page names it."""
    return HttpResponseRedirect(static("occ/favicon.svg"))


def robots(request: HttpRequest) -> HttpResponse:
    """Tell search engines to index nothing here."""
    return HttpResponse("User-agent: *\nDisallow: /\n", content_type="text/plain")


def security_contact(request: HttpRequest) -> HttpResponse:
    """Tell whoever has found a weakness whom to write to (RFC 9116).

    Raises:
        Http404: the operator has named nobody in SECURITY_CONTACT.
    """
    contact = configuration().security_contact
    if not contact:
        raise Http404
    expires = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + CONTACT_LASTS
    text = f"Contact: {contact}\nExpires: {expires:%Y-%m-%dT%H:%M:%SZ}\n"
    return HttpResponse(text, content_type="text/plain; charset=utf-8")


def _links(file_hash: str, path: str) -> list[tuple[str, str]]:
    """The names and addresses of the other pages about a file."""
    addresses = [(name, f"{get_script_prefix()}{part}/{file_hash}") for name, part in ABOUT_A_FILE]
    return [(name, address) for name, address in addresses if address != path]


def _context(method: str, path: str, status: int, data: Any, headers: Mapping[str, str]) -> dict[str, Any]:
    phrase = HTTPStatus(status).phrase
    return {
        "name": phrase,
        "method": method,
        "path": path,
        "status": f"{status} {phrase}",
        "problem": data if status >= 400 and isinstance(data, Mapping) and "detail" in data else None,
        "data": data,
        "document": None if data is None else markup.document(data),
        "headers": headers,
    }
