from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from storage.models.kinds import Kind
from storage.models.object import Destination
from storage.models.quota import Quota, Usage
from storage.models.statements import prepared

_BEGIN = """
    INSERT INTO storage_upload (id, owner_id, state, replication_factor, reserved, piece_size, piece_checksums,
           created_at, heartbeat_at)
    VALUES (%(upload)s, %(owner)s, 'receiving', %(factor)s, %(reserved)s, %(piece_size)s, '',
            statement_timestamp(), statement_timestamp())
"""


def _recording(reference: str, insertion: str, selected: str, *, place: str = "", and_place: str = "") -> str:
    """The statement that records a body.

    Args:
        reference: what will refer to the content: ``file`` or ``part``.
        insertion: an INSERT of the row of the file or part, which returns the row's ``id`` and ``replication_factor``.
        selected: the columns of the result.
        place: a further query of the WITH clause, before the content is inserted, with a comma at its end; may be
            empty.
        and_place: a further condition without which nothing is recorded, with an AND before it; may be empty.
    """
    return f"""
    WITH known AS (
        SELECT id FROM storage_upload WHERE id = %(upload)s FOR UPDATE
    ), {place} content AS (
        INSERT INTO storage_content (file_hash, size, chunk_size, chunk_count, state, created_at,
               retrievable, min_replication, avg_replication, max_replication, health_epoch, target)
        SELECT %(file_hash)s, %(size)s, %(chunk_size)s, %(chunk_count)s, 'ingesting', statement_timestamp(),
               false, 0, 0, 0, -1, %(factor)s
         WHERE (NOT %(is_known)s OR EXISTS (SELECT FROM known)) {and_place}
           AND (%(is_checked)s OR NOT EXISTS (SELECT FROM storage_quota WHERE owner_id = %(owner)s))
        ON CONFLICT (file_hash) DO UPDATE SET file_hash = EXCLUDED.file_hash
        RETURNING id, chunk_count
    ), {reference} AS (
        {insertion}
    ), upload AS (
        INSERT INTO storage_upload (id, owner_id, state, content_id, {reference}_id, replication_factor, reserved,
               piece_size, piece_checksums, created_at, heartbeat_at)
        SELECT %(upload)s, %(owner)s, 'accepted', content.id, {reference}.id, {reference}.replication_factor,
               %(reserved)s, %(piece_size)s, %(piece_checksums)s, statement_timestamp(), statement_timestamp()
          FROM content, {reference}
        ON CONFLICT (id) DO UPDATE
           SET state = EXCLUDED.state, content_id = EXCLUDED.content_id, {reference}_id = EXCLUDED.{reference}_id,
               reserved = EXCLUDED.reserved, replication_factor = EXCLUDED.replication_factor,
               piece_checksums = EXCLUDED.piece_checksums
        RETURNING id
    ), job AS (
        INSERT INTO storage_job (id, kind, queue, priority, file_hash, upload_id, owner_id, size, state, done, total,
               waiting_for, attempts, fence)
        SELECT %(job)s, 'ingest', 'ingest', %(priority)s, %(file_hash)s, upload.id, %(owner)s, %(size)s, 'queued', 0,
               chunk_count, '', 0, 0 FROM content, upload
        ON CONFLICT (id) DO UPDATE SET file_hash = EXCLUDED.file_hash, total = EXCLUDED.total
        RETURNING id
    )
    SELECT content.id, content.chunk_count, {selected}
      FROM content, {reference}, upload, job, set_config('synchronous_commit',
           CASE WHEN %(durable)s THEN current_setting('synchronous_commit') ELSE 'off' END, true) AS lazily
    """  # noqa: S608  all parts are constants of this module


_FILE = _recording(
    "file",
    """
        INSERT INTO storage_file AS f (owner_id, content_id, name, size, replication_factor, created_at)
        SELECT %(owner)s, id,
               coalesce(%(name)s, (SELECT name FROM storage_file WHERE owner_id = %(owner)s AND content_id = content.id
                                    ORDER BY id DESC LIMIT 1), encode(%(file_hash)s, 'hex')),
               %(size)s, %(factor)s, statement_timestamp() FROM content
        ON CONFLICT (owner_id, content_id, name) DO UPDATE
           SET replication_factor = greatest(f.replication_factor, EXCLUDED.replication_factor),
               modified_at = CASE WHEN f.replication_factor < EXCLUDED.replication_factor
                                  THEN statement_timestamp() ELSE f.modified_at END
        RETURNING id, name, replication_factor, xmax = 0 AS made
    """,
    """
           file.id, file.name, file.replication_factor, file.made,
           EXISTS (SELECT FROM storage_file had WHERE had.owner_id = %(owner)s AND had.content_id = content.id)
    """,
)
# The bucket's row is locked before the content's, as everywhere (RACES 47).
_PART = _recording(
    "part",
    """
        INSERT INTO storage_part (bucket_id, content_id, number, size, etag, checksums, replication_factor)
        SELECT %(bucket)s, id, 0, %(size)s, %(etag)s, %(checksums)s::jsonb, %(factor)s FROM content
        RETURNING id, replication_factor
    """,
    "part.id",
    place="bucket AS (SELECT id, max_bytes FROM storage_bucket WHERE id = %(bucket)s FOR KEY SHARE),",
    and_place="AND EXISTS (SELECT FROM bucket WHERE %(is_checked)s OR max_bytes IS NULL)",
)


@dataclass(frozen=True)
class Origin:
    """What the S3 door says about a body.

    Attributes:
        destination: the place for which the body arrived.
        etag: the MD5 of the body in hex.
        checksums: algorithm → checksum in base64.
    """

    destination: Destination
    etag: str
    checksums: dict[str, str]


@dataclass(frozen=True)
class Body:
    """A body that has arrived completely: a file's or, if it has an ``origin``, a part's.

    Attributes:
        upload_id: the upload's row id.
        is_known: True if the upload's row exists already and owns staged bytes.
        owner_id: the row id of the user who owns the file.
        file_hash: SHA-256 in hex.
        name: the file's name, as the client gave it. None stands for the newest name that the owner has for these
            bytes, or for the hash if the owner has no name for them.
        size: the size of the body in bytes.
        chunk_size: bytes of each chunk, and of each piece that has a checksum.
        chunk_count: the number of entries in the manifest.
        piece_checksums: CRC-32 of each piece, 4 bytes little-endian.
        replication_factor: the number of replicas that this upload asks for.
        job_id: the job that will ingest the body, if there is one already.
        origin: what the S3 door says about the body; None if the body becomes a file.
    """

    upload_id: uuid.UUID
    is_known: bool
    owner_id: int
    file_hash: str
    name: str | None
    size: int
    chunk_size: int
    chunk_count: int
    piece_checksums: bytes
    replication_factor: int
    job_id: uuid.UUID | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class Accepted:
    """An upload that the database knows.

    Attributes:
        replication_factor: the number of replicas that the upload's file or part wants.
    """

    upload_id: uuid.UUID
    job_id: uuid.UUID
    content_id: int
    file_hash: str
    size: int
    chunk_count: int
    replication_factor: int


@dataclass(frozen=True)
class AcceptedFile(Accepted):
    """An upload with the file that it made or found.

    Attributes:
        replication_factor: the file's factor: the largest factor that an upload of this file asked for.
        created: True if the owner had no file of this content and name before.
        deduplicated: True if the owner had a file on this content before, under this name or another one.
    """

    file_id: int
    name: str
    created: bool
    deduplicated: bool


@dataclass(frozen=True)
class AcceptedPart(Accepted):
    """An upload with the pending part that it made."""

    part_id: int


def record_reception(upload_id: uuid.UUID, *, owner_id: int, factor: int, reserved: int, piece_size: int) -> None:
    """Record that a body has begun to arrive. The row owns the staged bytes, and reserves room for the replicas.

    Args:
        upload_id: the upload's row id.
        owner_id: the row id of the user who will own the file.
        factor: the number of replicas that the file is assumed to have.
        reserved: bytes that all replicas together will need.
        piece_size: bytes that each piece checksum will cover.
    """
    prepared.rows(
        _BEGIN,
        {
            "upload": upload_id,
            "owner": owner_id,
            "factor": factor,
            "reserved": reserved,
            "piece_size": piece_size,
        },
    )


def record_acceptance(body: Body, *, durable: bool, is_limited: bool = False) -> AcceptedFile | None:
    """Record a complete body: insert its content, file, upload and job where they do not exist yet.

    Unless the owner has a quota, one statement records everything, in one round trip and one commit. The statement
    locks the content's row. A deletion of the content at the same time has either ended, and the content is inserted
    again, or waits for this statement (RACES 30). A file is new if ``xmax`` of its row is 0: the statement inserted the
    row instead of updating it.

    Args:
        body: the body to record.
        durable: True if the upload must survive a crash from here on. False if the caller waits for the ingest: the
            commit that ends the ingest comes later in the same log, and its wait for the disk is enough.
        is_limited: True if the owner probably has a quota. A wrong value changes no result, but may cost time.

    Returns:
        None if the upload was known but has been dropped since.

    Raises:
        ByteQuotaExceeded, FileQuotaExceeded: the file is new, and does not fit into its owner's quota.
    """
    # The statement alone records nothing if the owner has a quota. The slower call then checks the quota.
    accepted = None if is_limited else _record_file(body, durable=durable, is_checked=False)
    return accepted or _record_file_under_quota(body, durable=durable)


def record_part(body: Body, *, durable: bool, is_limited: bool = False) -> AcceptedPart | None:
    """Record a complete body of the S3 door, as ``record_acceptance`` does: a pending part refers to its content.

    Args:
        body: the body, which has an ``origin``.
        durable: as for ``record_acceptance``.
        is_limited: True if the owner or the bucket probably has a quota.

    Returns:
        None if the upload was known but has been dropped since, or if the bucket has been deleted.

    Raises:
        ByteQuotaExceeded, FileQuotaExceeded: the body does not fit into its owner's quota or the bucket's.
    """
    accepted = None if is_limited else _record_part(body, durable=durable, is_checked=False)
    return accepted or _record_part_under_quota(body, durable=durable)


def _record_file_under_quota(body: Body, *, durable: bool) -> AcceptedFile | None:
    """Record a body while the owner's quota is locked: files of one owner are checked one after the other (RACES 37).

    A file that the owner had already adds nothing to the usage, and is accepted whatever the quota is.
    """
    with prepared.atomic():
        quota = Quota.lock(body.owner_id)
        used = Usage.of(body.owner_id)
        accepted = _record_file(body, durable=durable, is_checked=True)
        if quota is not None and accepted is not None and accepted.created:
            quota.require(used, body.size)
        return accepted


def _record_part_under_quota(body: Body, *, durable: bool) -> AcceptedPart | None:
    """Record a part while the owner's quota and the bucket are locked, as ``_record_file_under_quota`` does.

    The bytes of the object that the part will overwrite are taken as free already. Until the object is overwritten, or
    the part is dropped, the usage may exceed the quota by these bytes, and no further part is accepted.
    """
    assert body.origin is not None
    destination = body.origin.destination
    with prepared.atomic():
        quota = Quota.lock(body.owner_id)
        bucket = destination.bucket.lock_if_there()
        if bucket is None:
            return None
        used, used_of_bucket = Usage.of(body.owner_id), bucket.used
        files, overwritten = destination.cost()
        accepted = _record_part(body, durable=durable, is_checked=True)
        if accepted is not None:
            for limit, usage in ((quota, used), (bucket.quota, used_of_bucket)):
                if limit is not None:
                    limit.require(usage.without(overwritten), body.size, files=files)
        return accepted


def _record_file(body: Body, *, durable: bool, is_checked: bool) -> AcceptedFile | None:
    job_id = body.job_id or uuid.uuid4()
    parameters = _parameters(body, job_id, durable=durable, is_checked=is_checked)
    for content_id, chunk_count, file_id, name, factor, is_new, had in prepared.rows(_FILE, parameters):
        return AcceptedFile(
            upload_id=body.upload_id,
            job_id=job_id,
            content_id=content_id,
            file_hash=body.file_hash,
            size=body.size,
            chunk_count=chunk_count,
            replication_factor=factor,
            file_id=file_id,
            name=name,
            created=is_new,
            deduplicated=had or not is_new,
        )
    return None


def _record_part(body: Body, *, durable: bool, is_checked: bool) -> AcceptedPart | None:
    assert body.origin is not None
    job_id = body.job_id or uuid.uuid4()
    parameters = _parameters(body, job_id, durable=durable, is_checked=is_checked) | {
        "bucket": body.origin.destination.bucket.pk,
        "etag": body.origin.etag,
        "checksums": json.dumps(body.origin.checksums),
    }
    for content_id, chunk_count, part_id in prepared.rows(_PART, parameters):
        return AcceptedPart(
            upload_id=body.upload_id,
            job_id=job_id,
            content_id=content_id,
            file_hash=body.file_hash,
            size=body.size,
            chunk_count=chunk_count,
            replication_factor=body.replication_factor,
            part_id=part_id,
        )
    return None


def _parameters(body: Body, job_id: uuid.UUID, *, durable: bool, is_checked: bool) -> dict[str, Any]:
    """The parameters that the statements for files and for parts have in common."""
    return {
        "upload": body.upload_id,
        "is_known": body.is_known,
        "is_checked": is_checked,
        "durable": durable,
        "file_hash": bytes.fromhex(body.file_hash),
        "size": body.size,
        "chunk_size": body.chunk_size,
        "chunk_count": body.chunk_count,
        "factor": body.replication_factor,
        "owner": body.owner_id,
        "name": body.name,
        "reserved": body.size * body.replication_factor,
        "piece_size": body.chunk_size,
        "piece_checksums": body.piece_checksums,
        "job": job_id,
        "priority": Kind.INGEST.priority,
    }
