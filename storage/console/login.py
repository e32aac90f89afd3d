"""Sessions: logging in with a user's name and password, and logging out."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import views
from django.contrib.auth.forms import AuthenticationForm, UsernameField
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from storage.accounts import rates
from storage.conf import VERSION, configuration
from storage.console.page import not_stored
from storage.exceptions import TooManyRequests


class LoginPage(views.LoginView):
    """The form for name and password. A login leads to the page that the browser asked for, if that page is ours."""

    template_name = "console/login.html"
    next_page = "root"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not configuration().auth_required:
            return HttpResponseRedirect(reverse("root"))
        return not_stored(super().dispatch(request, *args, **kwargs))

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Check the password. After too many attempts, no password is checked."""
        try:
            # The form normalises the name in the same way. Without this, each spelling of a name would have attempts of
            # its own.
            name = UsernameField().to_python(request.POST.get("username", "")) or ""
            rates.take_login(request.META.get("REMOTE_ADDR", ""), name)
        except TooManyRequests as error:
            return refusal(request, wait=error.wait)
        return super().post(request, *args, **kwargs)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        """Begin a session of full length. A single sign-on that was begun before has made the session short."""
        self.request.session.set_expiry(None)
        return super().form_valid(form)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**_frame(), **kwargs)


def refusal(request: HttpRequest, *, wait: int = 0, provider: str = "") -> HttpResponse:
    """The form for name and password, with the reason why a login was refused.

    Args:
        request: the request that is refused.
        wait: the number of seconds after which the next attempt may come; 0 if it may come at once.
        provider: the OpenID provider with which the login failed; empty if no provider was used.
    """
    context = {**_frame(), "wait": wait, "failed_provider": provider, "next": ""}
    response = render(request, LoginPage.template_name, context, status=429 if wait else 403)
    if wait:
        response.headers["Retry-After"] = str(wait)
    return response


def _frame() -> dict[str, Any]:
    provider = configuration().provider
    name = None if provider is None else provider.host
    return {"frame": "console/frame.html", "section": "login", "version": VERSION, "provider": name}


class LogoutPage(views.LogoutView):
    """The end of a session. The page takes only a POST with the CSRF token of a form."""

    http_method_names = ("post",)
    next_page = "console:login"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return not_stored(super().dispatch(request, *args, **kwargs))
