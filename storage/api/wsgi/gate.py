"""The gate of the API. It checks a request before the body is read: its key, its rate, its owner's transfers."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from storage.accounts import rates
from storage.accounts.principals import identify
from storage.api.authorization import authorize, is_limited, needs_key
from storage.api.errors import send_problem
from storage.api.wsgi.transfers import on_behalf_of
from storage.conf import configuration
from storage.exceptions import Forbidden, StorageError, Unauthenticated
from storage.models import NOBODY


class Gate:
    """WSGI middleware that refuses requests beyond a limit, or without a key that allows them.

    When a request is refused, its body is not read, nothing is staged, and no row is made.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            _admit(environ)
            owner = _owner(environ)
        except Exception as error:  # noqa: BLE001  every error is a problem document, or a defect that is logged
            return send_problem(error, environ, start_response)
        with on_behalf_of(owner):
            return self._application(environ, start_response)


def _owner(environ: WSGIEnvironment) -> str | None:
    """The id of the owner whose transfers a request adds to. While keys are off, all clients are one owner."""
    if not configuration().max_transfers_per_owner:
        return None
    if needs_key(environ):
        return str(authorize(environ).owner.pk)
    return None if configuration().auth_required else NOBODY


def _admit(environ: WSGIEnvironment) -> None:
    """Let a request pass if its key allows it. Count it if ``is_limited`` says so, or if it is refused.

    Raises:
        TooManyRequests: the key, or without a good key the address, has sent too many requests.
        Unauthenticated, Forbidden: as for ``authorize``.
    """
    subject = rates.origin(environ.get("REMOTE_ADDR", ""))
    refusal: StorageError | None = None
    try:
        if needs_key(environ):
            subject = authorize(environ).subject or subject
    except Unauthenticated as error:
        refusal = error
    except Forbidden as error:
        refusal, subject = error, identify(environ).subject or subject
    if refusal is not None or is_limited(environ):
        rates.take(subject)
    if refusal is not None:
        raise refusal
