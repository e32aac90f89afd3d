"""Which requests need a key, and what the key must allow."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from django.conf import settings

from storage import acting
from storage.accounts.principals import Principal, identify
from storage.api.pages.renderer import wants_page
from storage.api.wsgi.hosts import host_of
from storage.conf import configuration
from storage.exceptions import Forbidden
from storage.models import Scope

PRINCIPAL = "occ.principal"
READS = ("GET", "HEAD")
# Requests for a path of PUBLIC or OPEN need no key. The pages of the administration ask for a session of their own.
PUBLIC = r"/health|/livez|/readyz|/static/.*|/favicon\.ico|/robots\.txt|/\.well-known/security\.txt"
# The console asks the API with the session of its user, and asks a browser without a session to log in.
OPEN = re.compile(rf"{PUBLIC}|/schema|/docs|/share/.*|/admin(/.*)?|/console(/.*)?", re.DOTALL)
UNLIMITED = re.compile(PUBLIC, re.DOTALL)
HOME = "/"  # Browsers get the console here; other clients get a document of the API.
LINKS = re.compile(r"(/files/[^/]+)?/links(/.*)?", re.DOTALL)
UPLOADS = re.compile(r"/uploads(/.*)?", re.DOTALL)
FOR_ADMINS = re.compile(r"/status|/metrics|/history|/route/.*|/nodes(/.*)?", re.DOTALL)
KEYS_AND_JOBS = re.compile(r"/(keys|jobs)(/.*)?", re.DOTALL)
OPERATING = re.compile(r"/(nodes|keys|jobs|links)(/.*)?", re.DOTALL)
WATCHED = "/metrics"  # This address answers while PostgreSQL is away: a key that was good when last read is enough.


def authorize(environ: MutableMapping[str, Any]) -> Principal:
    """Find out who a request comes from, and whether its key allows the request.

    The result is kept in the environment: a second call for the same request costs nothing. The lines that are logged
    during the request have the id of its key from now on.

    Args:
        environ: the WSGI environment of the request.

    Raises:
        Unauthenticated: the request shows no good key, and the browser that sends it has no session.
        Forbidden: the key does not allow the request, or a page of another site has sent the request.
    """
    known = environ.get(PRINCIPAL)
    if isinstance(known, Principal):
        return known
    principal = identify(environ, last_known=environ["PATH_INFO"] == WATCHED)
    if principal.limit is not None:
        raise Forbidden("this key is for a bucket, which the S3 door opens")
    acting.begin(principal.actor)
    if principal.subject is None:
        if is_operation(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            require_same_site(environ)
    else:
        structlog.contextvars.bind_contextvars(key=principal.subject)
        if principal.in_session:
            _require_own_page(environ)
        require_same_site(environ)
        for scope in scopes_of(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            principal.require(scope)
    environ[PRINCIPAL] = principal
    return principal


def is_limited(environ: MutableMapping[str, Any]) -> bool:
    """True if a request counts towards RATE_LIMIT. Health checks and the files of the pages do not count.

    A PATCH of a resumable upload is not counted here: its view counts it if it brings few bytes.
    """
    if environ["REQUEST_METHOD"] == "PATCH" and UPLOADS.fullmatch(environ["PATH_INFO"]):
        return False
    return not is_unlimited(environ["PATH_INFO"])


def is_unlimited(path: str) -> bool:
    """True if requests for a path do not count towards RATE_LIMIT."""
    return UNLIMITED.fullmatch(path) is not None


def needs_key(environ: MutableMapping[str, Any]) -> bool:
    """True if a request needs a key.

    OPTIONS needs no key: before a page of another site sends a request, the browser asks with OPTIONS for permission
    (CORS), and does not send a key.
    """
    if not configuration().auth_required or environ["REQUEST_METHOD"] == "OPTIONS":
        return False
    return not is_open(environ["PATH_INFO"]) and not is_for_console(environ)


def is_for_console(environ: Mapping[str, Any]) -> bool:
    """True if a browser asks for the first page of the console, at the address of the API's root."""
    return environ["PATH_INFO"] == HOME and environ["REQUEST_METHOD"] in READS and wants_page(environ)


def is_open(path: str) -> bool:
    """True if requests for a path need no key."""
    return OPEN.fullmatch(path) is not None


def require_operator(principal: Principal, permission: str) -> None:
    """Refuse a principal that is no operator.

    Args:
        principal: who asks.
        permission: Django's permission that a user who is logged in needs too, as in the administration: staff may have
            been allowed to look only.

    Raises:
        Forbidden: the principal is no operator.
    """
    principal.require(Scope.ADMIN)
    if principal.in_session and not principal.owner.has_perm(permission):
        raise Forbidden("your user may look, but may not do this: an administrator can allow it")


def is_operation(method: str, path: str) -> bool:
    """True if pages of other sites may not send a request, even while keys are off: a page could drain a node."""
    return method not in READS and OPERATING.fullmatch(path) is not None


def scopes_of(method: str, path: str) -> tuple[Scope, ...]:
    """The scopes that a request needs. A share link lets others read, so a key for links must also allow reading."""
    if FOR_ADMINS.fullmatch(path):
        # A key that may only see the cluster, such as that of Prometheus, must not be able to change anything.
        return (Scope.ADMIN,) if method in READS else (Scope.ADMIN, Scope.WRITE)
    if LINKS.fullmatch(path):
        return (Scope.READ, Scope.WRITE)
    if UPLOADS.fullmatch(path):
        return (Scope.WRITE,)  # To end an upload deletes no file.
    if KEYS_AND_JOBS.fullmatch(path):
        return (Scope.READ,) if method in READS else (Scope.WRITE,)  # To revoke a key deletes no file.
    if method == "DELETE":
        return (Scope.DELETE,)
    return (Scope.READ,) if method in READS else (Scope.WRITE,)


def require_same_site(environ: MutableMapping[str, Any]) -> None:
    """Refuse a change that a page of another site asks for: the browser would add the key that it remembers.

    Browsers say in Sec-Fetch-Site, and in Origin, which site a request comes from. Over plain HTTP, browsers may send
    Origin alone. Clients other than browsers send neither Sec-Fetch-Site nor Origin.

    Raises:
        Forbidden: the page belongs to another site, which CORS_ALLOWED_ORIGINS does not name.
    """
    origin = environ.get("HTTP_ORIGIN")
    if environ["REQUEST_METHOD"] in READS or origin in settings.CORS_ALLOWED_ORIGINS:
        return
    is_foreign = origin is not None and origin.lower() != _own_origin(environ)
    if is_foreign or environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin"):
        raise Forbidden("a page of another site has sent this request: see CORS_ALLOWED_ORIGINS")


def _require_own_page(environ: Mapping[str, Any]) -> None:
    """Refuse a change in a session unless the browser says that a page of this service asks for it.

    Browsers add the cookie of the session by themselves, also to requests from pages of other sites. Every browser says
    where a change comes from, so a request that does not say it is refused too.

    Raises:
        Forbidden: neither Sec-Fetch-Site nor Origin says that the page belongs to this service.
    """
    if environ["REQUEST_METHOD"] in READS or environ.get("HTTP_SEC_FETCH_SITE") == "same-origin":
        return
    if environ.get("HTTP_ORIGIN", "").lower() != _own_origin(environ):
        raise Forbidden("in a session, changes come from pages of this service: programs need a key")


def _own_origin(environ: Mapping[str, Any]) -> str:
    return f"{environ['wsgi.url_scheme']}://{host_of(environ)}".lower()
