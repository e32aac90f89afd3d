from __future__ import annotations

import uuid
from dataclasses import dataclass

from storage.models.kinds import Kind
from storage.models.statements import prepared

_BEGIN = """
    INSERT INTO storage_upload (id, owner_id, state, replication_factor, reserved, piece_size, piece_checksums,
           created_at, heartbeat_at)
    VALUES (%(upload)s, %(owner)s, 'receiving', %(factor)s, %(reserved)s, %(piece_size)s, '',
            statement_timestamp(), statement_timestamp())
"""
_RECORD = """
    WITH known AS (
        SELECT id FROM storage_upload WHERE id = %(upload)s FOR UPDATE
    ), content AS (
        INSERT INTO storage_content (file_hash, size, chunk_size, chunk_count, state, created_at,
               retrievable, min_replication, avg_replication, max_replication, health_epoch, target)
        SELECT %(file_hash)s, %(size)s, %(chunk_size)s, %(chunk_count)s, 'ingesting', statement_timestamp(),
               false, 0, 0, 0, -1, %(factor)s
         WHERE NOT %(is_known)s OR EXISTS (SELECT FROM known)
        ON CONFLICT (file_hash) DO UPDATE SET file_hash = EXCLUDED.file_hash
        RETURNING id, chunk_count
    ), file AS (
        INSERT INTO storage_file AS f (owner_id, content_id, name, replication_factor, created_at)
        SELECT %(owner)s, id, %(name)s, %(factor)s, statement_timestamp() FROM content
        ON CONFLICT (owner_id, content_id) DO UPDATE
           SET replication_factor = greatest(f.replication_factor, EXCLUDED.replication_factor),
               modified_at = CASE WHEN f.replication_factor < EXCLUDED.replication_factor
                                  THEN statement_timestamp() ELSE f.modified_at END
        RETURNING id, name, replication_factor, xmax = 0 AS made
    ), upload AS (
        INSERT INTO storage_upload (id, owner_id, state, content_id, replication_factor, reserved,
               piece_size, piece_checksums, created_at, heartbeat_at)
        SELECT %(upload)s, %(owner)s, 'accepted', content.id, file.replication_factor, %(reserved)s,
               %(piece_size)s, %(piece_checksums)s, statement_timestamp(), statement_timestamp()
          FROM content, file
        ON CONFLICT (id) DO UPDATE
           SET state = EXCLUDED.state, content_id = EXCLUDED.content_id, reserved = EXCLUDED.reserved,
               replication_factor = EXCLUDED.replication_factor, piece_checksums = EXCLUDED.piece_checksums
        RETURNING id
    ), job AS (
        INSERT INTO storage_job (id, kind, queue, priority, file_hash, upload_id, size, state, done, total,
               waiting_for, attempts, fence)
        SELECT %(job)s, 'ingest', 'ingest', %(priority)s, %(file_hash)s, upload.id, %(size)s, 'queued', 0, chunk_count,
               '', 0, 0 FROM content, upload
        RETURNING id
    )
    SELECT content.id, content.chunk_count, file.id, file.name, file.replication_factor, file.made
      FROM content, file, upload, job, set_config('synchronous_commit',
           CASE WHEN %(durable)s THEN current_setting('synchronous_commit') ELSE 'off' END, true) AS lazily
"""


@dataclass(frozen=True)
class Body:
    """A body that has come as a whole.

    Attributes:
        upload_id: the upload's row id.
        is_known: whether that row is there already, and owns staged bytes.
        owner_id: whose file it is.
        file_hash: SHA-256 in hex.
        name: as the client calls the file.
        size: in bytes.
        chunk_size: bytes of each chunk, and of the pieces that have checksums.
        chunk_count: length of the manifest.
        piece_checksums: CRC-32 of each piece, 4 bytes little-endian.
        replication_factor: as it is wanted.
    """

    upload_id: uuid.UUID
    is_known: bool
    owner_id: int
    file_hash: str
    name: str
    size: int
    chunk_size: int
    chunk_count: int
    piece_checksums: bytes
    replication_factor: int


@dataclass(frozen=True)
class Accepted:
    """An upload that the database knows, with what its file is by now: the first name, the largest factor.

    Attributes:
        created: whether the owner had no file on this content before.
    """

    upload_id: uuid.UUID
    job_id: uuid.UUID
    content_id: int
    file_id: int
    owner_id: int
    file_hash: str
    name: str
    size: int
    chunk_count: int
    replication_factor: int
    created: bool


def record_reception(upload_id: uuid.UUID, *, owner_id: int, factor: int, reserved: int, piece_size: int) -> None:
    """Record that a body has begun to come: the row owns what is staged of it, and promises the room that it will need.

    Args:
        upload_id: the upload's row id.
        owner_id: whose file it will be.
        factor: how many replicas it is assumed to have.
        reserved: bytes that all of them will need.
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


def record_acceptance(body: Body, *, durable: bool) -> Accepted | None:
    """Record a whole body: its content, file and upload, each made if it is not there, and its job.

    One statement, hence one round trip and one commit. The content's row is locked: a deletion is over, and the
    content is made anew, or it waits (RACES 30). A file is new if its row has no deleting transaction, xmax: an
    insertion made it.

    Args:
        body: what has come.
        durable: whether it must survive a crash from here on. Who waits for the ingest need not wait for the disk
            twice: the commit that ends it comes after this one in the same log.

    Returns:
        None when the upload was known, and has been dropped meanwhile.
    """
    job_id = uuid.uuid4()
    found = prepared.rows(
        _RECORD,
        {
            "upload": body.upload_id,
            "is_known": body.is_known,
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
        },
    )
    if not found:
        return None
    content_id, chunk_count, file_id, name, factor, made = found[0]
    return Accepted(
        upload_id=body.upload_id,
        job_id=job_id,
        content_id=content_id,
        file_id=file_id,
        owner_id=body.owner_id,
        file_hash=body.file_hash,
        name=name,
        size=body.size,
        chunk_count=chunk_count,
        replication_factor=factor,
        created=made,
    )
