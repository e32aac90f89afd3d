"""Logging in with an OpenID provider: the authorization code flow of OpenID Connect Core 1.0, with PKCE, by Authlib."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import requests
import structlog
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.django_client import OAuth
from django.contrib.auth import login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views import View
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


class _SingleSignOn(View):
    http_method_names = ("get",)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        provider = configuration().provider
        if provider is None or not configuration().auth_required:
            raise Http404
        try:
            rates.take_sign_on(request.META.get("REMOTE_ADDR", ""))
            return not_stored(self.answer(request, provider))
        except TooManyRequests as error:
            return not_stored(refusal(request, wait=error.wait))
        except REFUSED as error:
            log.warning("login.refused", error=type(error).__name__, reason=str(error)[:200])
            return not_stored(refusal(request, provider=provider.host))

    def answer(self, request: HttpRequest, provider: Provider) -> HttpResponse:
        raise NotImplementedError


class BeginPage(_SingleSignOn):
    """Send the browser to the provider."""

    def answer(self, request: HttpRequest, provider: Provider) -> HttpResponse:
        request.session[NEXT] = request.GET.get(NEXT, "")
        request.session.set_expiry(ON_THE_WAY_SECONDS)
        address = request.build_absolute_uri(reverse("console:single-sign-on-return"))
        response: HttpResponse = _client(provider).authorize_redirect(request, address)
        return response


class ReturnPage(_SingleSignOn):
    """Log in the person with whom the browser comes back from the provider."""

    def answer(self, request: HttpRequest, provider: Provider) -> HttpResponse:
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
