"""What all pages of the console have in common."""

from __future__ import annotations

import time
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django.views import View

from storage.accounts.principals import Principal, identify
from storage.conf import VERSION, configuration
from storage.console.client import Answer, Api
from storage.exceptions import Unauthenticated
from storage.models import Scope

READS = ("GET", "HEAD")
R = TypeVar("R", bound=HttpResponseBase)
OFFER = "undo"  # the key of the session under which the last deletion can be undone
BACK = "back"  # the field with the page of the console to which a form returns
EXPLANATIONS = {
    403: "You may not do this.",
    404: "There is nothing here. The file may have been deleted, or it belongs to somebody else.",
    410: "The file is lost: no copy of a part of it is left. Upload it again.",
    503: "This cannot be done now. Try again in a moment.",
    507: "There is no room left. Delete files, or ask the operator to make room.",
}


class Refused(Exception):
    """The API has refused what a page needs. The page then shows the reason instead of its contents.

    Attributes:
        answer: the answer of the API.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Page(View):
    """A page of the console. Its ``api`` sends requests in the name of the user who opened the page.

    Attributes:
        section: the entry of the navigation that is marked on the page.
        for_admins: True if the page needs the scope ``admin``.
    """

    section = ""
    for_admins = False
    principal: Principal
    api: Api

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            self.principal = identify(request.META)
        except Unauthenticated:
            return not_stored(self._to_login())
        self.api = Api(request, self.principal)
        try:
            if self.for_admins and Scope.ADMIN not in self.principal.scopes:
                raise Refused(Answer(403, {"detail": "this page is for admins"}))
            response = super().dispatch(request, *args, **kwargs)
        except Refused as refused:
            response = self._refusal(refused.answer)
        return not_stored(response)

    def show(self, template: str, context: dict[str, Any] | None = None, status: int = 200) -> HttpResponse:
        """The page that a template makes; only its inner part if htmx asks for it."""
        frame = "console/part.html" if "HX-Request" in self.request.headers else "console/frame.html"
        return render(self.request, template, {"frame": frame, **self._common(), **(context or {})}, status=status)

    def need(self, answer: Answer) -> Any:
        """The document of an answer that the page cannot do without.

        Raises:
            Refused: the answer is a refusal.
        """
        if not answer.is_good:
            raise Refused(answer)
        return answer.document

    def go_back(self) -> HttpResponse:
        """Return to the page that the form names, if it is one of ours, or otherwise to the files."""
        return self.go_to(self.back())

    def go_to(self, address: str) -> HttpResponse:
        """Go on to another page of this service."""
        if "HX-Request" in self.request.headers:
            return HttpResponse(status=204, headers={"HX-Redirect": address})
        return HttpResponse(status=303, headers={"Location": address})

    def back(self) -> str:
        """The page of this service that the request names; the files if it names no such page."""
        named = self.request.POST.get(BACK) or self.request.GET.get(BACK) or ""
        is_ours = url_has_allowed_host_and_scheme(named, None) and named.startswith("/")
        return named if is_ours else reverse("root")

    def _common(self) -> dict[str, Any]:
        return {
            "section": self.section,
            "user_name": self.principal.owner.username if configuration().auth_required else None,
            "has_keys": configuration().auth_required,
            "is_admin": Scope.ADMIN in self.principal.scopes,
            "may_write": Scope.WRITE in self.principal.scopes,
            "version": VERSION,
            "offer": self._offer(),
        }

    def _offer(self) -> str | None:
        """What was deleted last, in words, as long as that can be undone."""
        offered = self.request.session.get(OFFER)
        return offered["said"] if offered and offered["ends"] > time.time() else None

    def _refusal(self, answer: Answer) -> HttpResponse:
        context = {"explanation": EXPLANATIONS.get(answer.status, "This did not work."), "problem": answer.document}
        return self.show("console/refused.html", context, answer.status)

    def _to_login(self) -> HttpResponse:
        address = reverse("console:login")
        if self.request.method in READS and "HX-Request" not in self.request.headers:
            return HttpResponseRedirect(f"{address}?{urlencode({'next': self.request.get_full_path()})}")
        return self.go_to(address)


def not_stored(response: R) -> R:
    """Keep a page out of every cache: it is for one user, and other clients may get JSON at its address."""
    response.headers.setdefault("Cache-Control", "no-store")
    patch_vary_headers(response, ("Accept", "Cookie", "HX-Request"))
    return response


def cursor_in(address: str | None) -> str | None:
    """The cursor in the address of the next page of a list of the API; None after the last page."""
    return None if address is None else parse_qs(urlsplit(address).query)["cursor"][0]


def reason(answer: Answer) -> str:
    """The words in which the API explains a refusal; only the words about single fields, if there are any."""
    errors = answer.document.get("errors") or {}
    by_field = " ".join(message for messages in errors.values() for message in messages)
    return by_field or str(answer.document.get("detail", ""))
