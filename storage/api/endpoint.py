"""The base class of the views, and the negotiation that they share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from storage.api.authorization import READS, authorize, needs_key
from storage.api.pages.renderer import PageRenderer
from storage.api.parameters import require_known
from storage.api.uploads.bodies import StrictRequest
from storage.exceptions import InvalidRequest
from storage.models.fields import HEX_DIGEST

RETRY_AFTER = 2
ANYTHING = "*/*"


class Negotiation(DefaultContentNegotiation):
    """Negotiation with a short cut: a client that accepts anything, or does not say what it accepts, gets JSON."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        if request.META.get("HTTP_ACCEPT", ANYTHING) in (ANYTHING, renderers[0].media_type):
            return renderers[0], renderers[0].media_type
        try:
            return super().select_renderer(request, renderers, format_suffix)
        except (ValueError, LookupError, TypeError):  # The field is malformed.
            raise NotAcceptable from None


class Endpoint(APIView):
    """A view whose requests are ``StrictRequest`` objects. ``authorize`` checks keys and scopes; DRF checks none.

    Attributes:
        parameters: the query parameters that the view takes; any other parameter is answered with 400.
        heading: the heading of the view's page; None for the view's name.
        done: what the view's page says after a DELETE.
    """

    parameters: Collection[str] = ()
    heading: str | None = None
    done: str = "The file is deleted."
    content_negotiation_class: type[BaseContentNegotiation] = Negotiation

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the key, choose the format of the answer, and check the query.

        DRF's other preparations are not needed.
        """
        if needs_key(request.META):
            authorize(request.META)
        self.format_kwarg = None
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request)
        require_known(request.META, self.parameters)

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> StrictRequest:
        return StrictRequest(
            request,
            parsers=self.get_parsers(),
            authenticators=self.get_authenticators(),
            negotiator=self.get_content_negotiator(),
            parser_context=self.get_parser_context(request),
        )

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Show a browser the page with the form if the view takes nothing but POST. Other clients get the 405."""
        is_page = isinstance(getattr(request, "accepted_renderer", None), PageRenderer)
        if is_page and request.method in READS and "POST" in self.allowed_methods:
            return Response(self.above_form(request, **kwargs))
        return super().http_method_not_allowed(request, *args, **kwargs)

    def above_form(self, request: Request, **kwargs: Any) -> dict[str, Any] | None:
        """A document for the page with the form; None if the form is for something new."""
        return None


def owner_of(request: Request) -> User:
    """The user whose files a request is about."""
    return authorize(request.META).owner


def well_formed(file_hash: str) -> str:
    """Return the hash of a path unchanged if it is well-formed.

    Raises:
        InvalidRequest: ``file_hash`` is not a SHA-256 in lower-case hex.
    """
    if not HEX_DIGEST.fullmatch(file_hash):
        raise InvalidRequest("a file hash has 64 lower-case hex digits", {"file_hash": ["Not a SHA-256."]})
    return file_hash
