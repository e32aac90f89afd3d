"""The page on which an operator logs in. Attempts are limited, so that nobody can try many passwords."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.forms import UsernameField
from django.http import HttpRequest, HttpResponse

from storage.accounts import rates
from storage.api.errors import problem_response
from storage.exceptions import TooManyRequests


def login(request: HttpRequest) -> HttpResponse:
    """Django's page, except that an attempt beyond the limits gets a 429, and its password is not checked."""
    if request.method == "POST":
        try:
            # The login form normalises the name (Unicode NFKC) as this line does. Without this step each spelling of a
            # name would have its own limit of attempts.
            name = str(UsernameField().to_python(request.POST.get("username", "")))
            rates.take_login(request.META.get("REMOTE_ADDR", ""), name)
        except TooManyRequests as error:
            return problem_response(error, {"request": request})
    return admin.site.login(request)
