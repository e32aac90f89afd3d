"""The S3 door: a WSGI application that answers the requests of S3's clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from wsgiref.types import StartResponse, WSGIEnvironment

import structlog
from django.db import connection

from storage import acting
from storage.accounts import rates
from storage.api.errors import RETRY_AFTER, status_line
from storage.api.metrics import requests
from storage.api.wsgi import ids
from storage.api.wsgi.hosts import host_of
from storage.api.wsgi.transfers import on_behalf_of
from storage.conf import configuration
from storage.models import NOBODY
from storage.s3 import cors, documents
from storage.s3.authentication import authenticate, require_allowed
from storage.s3.errors import INTERNAL, S3Error, as_s3
from storage.s3.operations import (
    attributes,
    buckets,
    copies,
    deletions,
    listings,
    multipart,
    objects,
    posts,
    settings,
    tags,
)
from storage.s3.request import Reply, Request

log = structlog.get_logger(__name__)

Handler = Callable[[Request], Reply]
ROUTE = "s3:"  # In metrics, the routes of this door are this text followed by the name of an operation.
OTHER = "other"

HANDLERS: Mapping[str, Handler] = {
    "AbortMultipartUpload": multipart.abort,
    "CompleteMultipartUpload": multipart.complete,
    "CopyObject": copies.copy_object,
    "CreateBucket": buckets.create_bucket,
    "CreateMultipartUpload": multipart.create,
    "DeleteBucket": buckets.delete_bucket,
    "DeleteObject": objects.delete_object,
    "DeleteObjectTagging": tags.delete,
    "DeleteObjects": deletions.delete_objects,
    "GetBucketAcl": settings.get_acl,
    "GetBucketLocation": buckets.get_location,
    "GetBucketRequestPayment": settings.get_request_payment,
    "GetObject": objects.get_object,
    "GetObjectAcl": settings.get_acl,
    "GetObjectAttributes": attributes.get,
    "GetObjectTagging": tags.get,
    "HeadBucket": buckets.head_bucket,
    "HeadObject": objects.get_object,
    "ListBuckets": buckets.list_buckets,
    "ListMultipartUploads": multipart.list_uploads,
    "ListObjectVersions": listings.list_versions,
    "ListObjects": listings.list_objects,
    "ListObjectsV2": listings.list_objects_v2,
    "ListParts": multipart.list_parts,
    "PostObject": posts.post_object,
    "PutBucketAcl": settings.put_acl,
    "PutObject": objects.put_object,
    "PutObjectAcl": settings.put_acl,
    "PutObjectTagging": tags.put,
    "UploadPart": multipart.upload_part,
    "UploadPartCopy": copies.upload_part_copy,
    **{name: settings.absent(name) for name in settings.ABSENT},
    **{name: settings.empty(name) for name in settings.EMPTY},
}


def route_of(environ: WSGIEnvironment) -> str:
    """The route of a request, for metrics: one of a short list."""
    try:
        return ROUTE + Request.read(environ).operation
    except S3Error:
        return ROUTE + OTHER


class Door:
    """The WSGI application."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            reply = self._answer(environ)
        except Exception as error:  # noqa: BLE001  every error is a document, or a defect that is logged
            reply = refusal(error, environ)
        finally:
            # The connection to PostgreSQL goes back to the pool, because this thread may now wait long for its client.
            connection.close()
        headers = {"x-amz-request-id": environ.get(ids.ID, ""), **cors.fields(environ), **reply.headers}
        body = [reply.body] if isinstance(reply.body, bytes) else reply.body
        if isinstance(reply.body, bytes) and "Content-Length" not in headers and reply.status not in (204, 304):
            headers["Content-Length"] = str(len(reply.body))
        try:
            start_response(status_line(reply.status), list(headers.items()))
        except BaseException:
            if (close := getattr(body, "close", None)) is not None:
                close()
            raise
        return body

    def _answer(self, environ: WSGIEnvironment) -> Reply:
        subject = rates.origin(environ.get("REMOTE_ADDR", ""))
        try:
            _require_host(environ)
            if environ["REQUEST_METHOD"] == "OPTIONS":
                return cors.preflight(environ)
            request = Request.read(environ)
            authenticate(request)
            subject = request.principal.subject or subject
        finally:
            rates.take(subject)
        acting.begin(request.principal.actor)
        require_allowed(request)
        with on_behalf_of(_owner(request)):
            return HANDLERS[request.operation](request)


def _require_host(environ: WSGIEnvironment) -> None:
    domain = configuration().s3_domain
    if host_of(environ, *((domain, f".{domain}") if domain else ())) is None:
        raise S3Error("InvalidRequest", "this host is not served: see ALLOWED_HOSTS and S3_DOMAIN")


def _owner(request: Request) -> str | None:
    """The id of the owner whose transfers a request adds to; None if the transfers of owners are not limited.

    While keys are off, all clients together are one owner.
    """
    if not configuration().max_transfers_per_owner:
        return None
    return str(request.principal.owner.pk) if configuration().auth_required else NOBODY


def refusal(error: Exception, environ: WSGIEnvironment) -> Reply:
    """The error document for an error. An error that has no code of S3 is a defect, and is logged."""
    found = as_s3(error)
    if found is None:
        log.exception("request.failed", exc_info=error)
        found = S3Error(INTERNAL, "We encountered an internal error. Please try again.")
    requests.problem(f"{ROUTE}{found.code}")
    headers = {"Content-Type": "application/xml", **found.headers}
    if found.status in (503, 507):
        headers["Retry-After"] = str(RETRY_AFTER)
    if environ["REQUEST_METHOD"] == "HEAD":
        return Reply(found.status, {**headers, "Content-Length": "0"})
    document = documents.Node("Error")
    documents.add(document, "Code", found.code)
    documents.add(document, "Message", documents.printable(str(found)))
    for name, text in found.details.items():
        documents.add(document, name, documents.printable(text))
    documents.add(document, "Resource", environ["RAW_URI"].partition("?")[0])
    documents.add(document, "RequestId", environ.get(ids.ID, ""))
    return Reply(found.status, headers, documents.render(document))
