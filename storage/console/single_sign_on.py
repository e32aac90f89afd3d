"""Logging in with an OpenID provider: the authorization code flow of OpenID Connect Core 1.0, with PKCE, by Authlib."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import requests
import structlog
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.django_client import OAuth
from django.contrib.auth import login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET
from joserfc.errors import JoseError

from storage.accounts import rates
from storage.accounts.identities import user_of
from storage.conf import Provider, configuration
from storage.console.login import refusal
from storage.console.page import not_stored
from storage.exceptions import TooManyRequests

log = structlog.get_logger(__name__)

NEXT = "next"
ON_THE_WAY_SECONDS = 600  # This is the time for logging in at the provider.
ANSWER_SECONDS = 5.0  # The provider has this time for each of our questions.
REFUSED = (AuthlibBaseError, JoseError, requests.RequestException, KeyError, ValueError, RuntimeError)
"""The errors of a provider that is away or says no, and of answers that are malformed or from elsewhere."""


def _step(answer: Callable[[HttpRequest, Provider], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """The view of one step of a login. If the step is refused, the view shows the page for name and password."""

    @require_GET
    @wraps(answer)
    def view(request: HttpRequest) -> HttpResponse:
        provider = configuration().provider
        if provider is None or not configuration().auth_required:
            raise Http404
        try:
            rates.take_sign_on(request.META.get("REMOTE_ADDR", ""))
            return not_stored(answer(request, provider))
        except TooManyRequests as error:
            return not_stored(refusal(request, wait=error.wait))
        except REFUSED as error:
            log.warning("login.refused", error=type(error).__name__, reason=str(error)[:200])
            return not_stored(refusal(request, provider=provider.host))

    return view


@_step
def begin(request: HttpRequest, provider: Provider) -> HttpResponse:
    """Send the browser to the provider."""
    request.session[NEXT] = request.GET.get(NEXT, "")
    if not request.user.is_authenticated:
        request.session.set_expiry(ON_THE_WAY_SECONDS)
    address = request.build_absolute_uri(reverse("console:single-sign-on-return"))
    response: HttpResponse = _client(provider).authorize_redirect(request, address)
    return response


@_step
def come_back(request: HttpRequest, provider: Provider) -> HttpResponse:
    """Log in the person with whom the browser comes back from the provider."""
    user = user_of(_claims(request, provider), provider.admin_group)
    if not user.is_active:
        raise ValueError("the user is not active")
    target = str(request.session.pop(NEXT, ""))
    request.session.set_expiry(None)
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    is_ours = url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure())
    return HttpResponseRedirect(target if is_ours else reverse("root"))


def _claims(request: HttpRequest, provider: Provider) -> dict[str, Any]:
    """What the provider says of the person: the claims of the ID token, and what its userinfo endpoint adds to them."""
    client = _client(provider)
    issuer = {"iss": {"essential": True, "value": provider.issuer}}
    token = client.authorize_access_token(request, claims_options=issuer)
    claims = dict(token["userinfo"])
    if client.load_server_metadata().get("userinfo_endpoint"):
        more = client.userinfo(token=token)
        if more["sub"] != claims["sub"]:
            raise ValueError("the userinfo endpoint speaks of another subject")  # OpenID Connect Core 1.0, §5.3.2
        claims = {**more, **claims}
    return claims


@lru_cache(maxsize=4)
def _client(provider: Provider) -> Any:
    """A provider's client: it reads the description of the provider once, and the provider's keys when they change."""
    return OAuth().register(
        "provider",
        client_id=provider.client_id,
        client_secret=provider.client_secret,
        server_metadata_url=f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": "openid profile email",
            "code_challenge_method": "S256",
            "default_timeout": ANSWER_SECONDS,
        },
    )
