"""An address with slashes too many, or one too few, leads to the one that is meant."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponsePermanentRedirect
from django.urls import is_valid_path
from django.utils.encoding import escape_uri_path, iri_to_uri
from django.utils.http import escape_leading_slashes
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def without_slash(request: HttpRequest, **_: object) -> HttpResponsePermanentRedirect:
    """Lead to the address without the slashes at its end.

    Raises:
        Http404: there is nothing either.
    """
    if not is_valid_path(request.path_info.rstrip("/")):
        raise Http404
    return _moved(request, request.path.rstrip("/"))


@csrf_exempt
def with_slash(request: HttpRequest, **_: object) -> HttpResponsePermanentRedirect:
    """Lead to the address with one slash at its end."""
    return _moved(request, request.path.rstrip("/") + "/")


def _moved(request: HttpRequest, path: str) -> HttpResponsePermanentRedirect:
    """301 for those who read, as every client knows it; 308 for the others, which must not turn into readers."""
    query = request.META.get("QUERY_STRING", "")
    address = escape_leading_slashes(escape_uri_path(path)) + (f"?{iri_to_uri(query)}" if query else "")
    return HttpResponsePermanentRedirect(address, preserve_request=request.method not in ("GET", "HEAD"))
