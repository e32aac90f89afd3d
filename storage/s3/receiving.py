"""Receive a body and store it as a part, which the caller then attaches to an object or to a multipart upload."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from django.db import connection

from storage.api.uploads.bodies import FORM_OVERHEAD
from storage.conf import configuration
from storage.models import Bucket, Destination
from storage.s3 import checksums
from storage.s3.bodies import Digests, IncomingBody
from storage.s3.errors import S3Error
from storage.s3.request import Request
from storage.services import intake, objects

Receive = Callable[[intake.Reception], Digests]


def store(request: Request, bucket: Bucket, factor: int, *, algorithms: Iterable[str] = ()) -> tuple[int, Digests]:
    """Store the body of a request.

    Args:
        request: the request.
        bucket: the bucket that the object will be in.
        factor: the number of replicas that the body should have.
        algorithms: checksums to compute in addition to those that the client sends.

    Returns:
        The row id of a pending part, and the checksums that were computed while the body arrived.

    Raises:
        S3Error: the body is not what the client announced, or takes too long to be stored.
        StorageError: an error of ``intake``.
    """
    body = IncomingBody(request, algorithms=algorithms)
    return store_from(
        request,
        bucket,
        factor,
        body.size,
        lambda reception: body.receive(reception.write, lambda: reception.sha256),
        overhead=0 if request.form is None else FORM_OVERHEAD,
    )


def store_from(
    request: Request, bucket: Bucket, factor: int, size: int, receive: Receive, *, overhead: int = 0
) -> tuple[int, Digests]:
    """Store bytes from any source.

    Args:
        request: the request whose address has the key of the future object.
        bucket: the bucket that the object will be in.
        factor: the number of replicas that the bytes should have.
        size: the announced number of bytes; 0 if it is not known.
        receive: a function that writes all bytes to the reception that it is called with.
        overhead: at most this many bytes of ``size`` belong to the form around the object, and not to the object.

    Returns:
        As ``store``.
    """
    # A part of a multipart upload has no key: it adds no object, and overwrites none.
    destination = Destination(bucket, None if "uploadId" in request.query else request.key)
    reception = intake.Reception(
        request.principal.owner,
        declared_size=size,
        replication_factor=factor,
        overhead=overhead,
        destination=destination,
    )
    # The connection to PostgreSQL goes back to the pool, because this thread may now wait long for its client.
    connection.close()
    with reception:
        digests = receive(reception)
        accepted = reception.accept_part(etag=digests.md5, checksums=digests.checksums)
    assert accepted.part_id is not None
    if intake.finish(accepted, configuration().upload_wait, durable=False) is None:
        objects.discard(accepted.part_id)
        raise S3Error("SlowDown", "the body could not be stored in time: reduce your request rate")
    return accepted.part_id, digests


def checksum_fields(stored: Mapping[str, str]) -> dict[str, str]:
    """The header fields of an answer with the checksums of an object or part."""
    found = {checksums.field_of(name): value for name, value in stored.items() if name in checksums.SIZES}
    if found and "type" in stored:
        found["x-amz-checksum-type"] = stored["type"]
    return found
