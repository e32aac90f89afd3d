"""Find out who sends a request, and whether the key allows the request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import structlog

from storage.accounts.principals import Signer, anyone, signer
from storage.api.authorization import require_same_site
from storage.conf import configuration
from storage.exceptions import Unauthenticated
from storage.models import Scope
from storage.s3.errors import S3Error
from storage.s3.forms import POLICY, Form
from storage.s3.request import Request
from storage.s3.router import POST_OBJECT
from storage.s3.signatures import canonical
from storage.s3.signatures.claim import PAYLOAD, Claim
from storage.s3.signatures.reading import claimed, claimed_by_form

DELETES = frozenset(("DeleteBucket", "DeleteObject", "DeleteObjects"))
OF_WHOLE_BUCKETS = frozenset(("CreateBucket", "DeleteBucket", "PutBucketAcl"))
READS = ("GET", "HEAD")


def authenticate(request: Request) -> None:
    """Find out who sends a request: set ``principal``, ``payload``, ``chain`` and ``form`` of the request.

    While keys are off, everyone is ``nobody``: a client may sign with any key, and no signature is checked.

    Raises:
        S3Error: the request has no signature, or a wrong one, or a form that its policy does not allow.
        Forbidden: keys are off, and a page of another site asks for a change.
    """
    environ = request.environ
    if not configuration().auth_required:
        # While keys are on, the signature proves that no page of another site sends the request.
        require_same_site(environ)
    if request.operation == POST_OBJECT:
        request.form = Form(environ)  # No connection to PostgreSQL is held yet, because the client may be slow.
        _authenticate_form(request, request.form)
        return
    request.payload = canonical.header(environ, PAYLOAD)
    if not configuration().auth_required:
        request.principal = anyone()
        return
    claim = _needed(claimed(environ))
    claim.require_time(datetime.now(UTC))
    found = _signer(claim.key_id)
    key = claim.key(found.secret)
    claim.require_signature(environ, request.address, key)
    if claim.headers:
        request.environ = {**claim.headers, **environ}
    request.principal, request.payload, request.chain = found.principal, claim.payload, claim.chain(key)
    structlog.contextvars.bind_contextvars(key=claim.key_id)


def _authenticate_form(request: Request, form: Form) -> None:
    """Find out whose key has signed the policy of a form. The policy is checked even while keys are off."""
    if configuration().auth_required:
        claim = _needed(claimed_by_form(form.fields))
        found = _signer(claim.key_id)
        claim.require_policy_signature(form.fields[POLICY], claim.key(found.secret))
        request.principal = found.principal
        structlog.contextvars.bind_contextvars(key=claim.key_id)
    else:
        request.principal = anyone()
    if POLICY in form.fields:
        form.require_policy(request.address.bucket, datetime.now(UTC))


def _needed(claim: Claim | None) -> Claim:
    if claim is None:
        raise S3Error("AccessDenied", "Access Denied: sign the request with a key")
    return claim


def _signer(key_id: str) -> Signer:
    try:
        return signer(key_id)
    except Unauthenticated:
        raise S3Error(
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            details={"AWSAccessKeyId": key_id},
        ) from None


def scope_of(operation: str, method: str) -> Scope:
    """The scope that an operation needs. AbortMultipartUpload deletes no object, so it needs ``write`` only."""
    if operation in DELETES:
        return Scope.DELETE
    return Scope.READ if method in READS else Scope.WRITE


def require_allowed(request: Request) -> None:
    """Refuse what the key of a request does not allow.

    Raises:
        Forbidden: the key lacks a scope, or is limited to another bucket or other keys.
    """
    environ: Mapping[str, str] = request.environ
    request.principal.require(scope_of(request.operation, environ["REQUEST_METHOD"]))
    if request.operation == "ListBuckets":
        return  # The operation lists only buckets that the key allows.
    limit = request.principal.limit
    place = request.key
    if not place and limit is not None and request.operation not in OF_WHOLE_BUCKETS:
        # The operation is about the bucket itself, or its body or query names the objects. Only the bucket is checked
        # here: operations that list or delete objects check the names themselves.
        place = limit.prefix
    request.principal.require_place(request.address.bucket, place)
