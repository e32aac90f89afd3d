"""Redirects from an address with too many slashes at its end, or one too few, to the address that is meant."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponsePermanentRedirect
from django.urls import is_valid_path
from django.utils.encoding import escape_uri_path, iri_to_uri
from django.utils.http import escape_leading_slashes
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def without_slash(request: HttpRequest, **_: object) -> HttpResponsePermanentRedirect:
    """Redirect to the address without the slashes at its end.

    Raises:
        Http404: there is nothing at that address either.
    """
    if not is_valid_path(request.path_info.rstrip("/")):
        raise Http404
    return _moved(request, request.path.rstrip("/"))


@csrf_exempt
def with_slash(request: HttpRequest, **_: object) -> HttpResponsePermanentRedirect:
    """Redirect to the address with one slash at its end."""
    return _moved(request, request.path.rstrip("/") + "/")


def _moved(request: HttpRequest, path: str) -> HttpResponsePermanentRedirect:
    """Answer GET and HEAD with 301, which every client knows. Answer other methods with 308, which keeps the method."""
    query = request.META.get("QUERY_STRING", "")
    address = escape_leading_slashes(escape_uri_path(path)) + (f"?{iri_to_uri(query)}" if query else "")
    return HttpResponsePermanentRedirect(address, preserve_request=request.method not in ("GET", "HEAD"))
