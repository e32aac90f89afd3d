from __future__ import annotations

from django.db import connection

from storage.models.content import Content
from storage.models.file import File
from storage.models.job import Job
from storage.models.upload import Upload


def record_acceptance(upload: Upload, content: Content, file: File, job: Job) -> bool:
    """Record a whole body: its content, file and upload, each made if it is not there, and its job.

    One statement, hence one round trip and one commit. The content's row is locked: a deletion is over, and the
    content is made anew, or it waits (RACES 30). The larger replication factor wins, the first name stays. What the
    rows are by now is written back into the arguments.

    Returns:
        Whether the file is new: a row that an insertion made has no deleting transaction, xmax.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH content AS (
                INSERT INTO storage_content (file_hash, size, chunk_size, chunk_count, state, created_at,
                       retrievable, min_replication, avg_replication, max_replication, health_epoch, target)
                VALUES (%(file_hash)s, %(size)s, %(chunk_size)s, %(chunk_count)s, 'ingesting', statement_timestamp(),
                       false, 0, 0, 0, -1, %(factor)s)
                ON CONFLICT (file_hash) DO UPDATE SET file_hash = EXCLUDED.file_hash
                RETURNING id, chunk_size, chunk_count
            ), file AS (
                INSERT INTO storage_file AS f (owner_id, content_id, name, replication_factor, created_at)
                SELECT %(owner)s, id, %(name)s, %(factor)s, statement_timestamp() FROM content
                ON CONFLICT (owner_id, content_id) DO UPDATE
                   SET replication_factor = greatest(f.replication_factor, EXCLUDED.replication_factor)
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
                SELECT %(job)s, 'ingest', 'ingest', 0, %(file_hash)s, upload.id, %(size)s, 'queued', 0, chunk_count,
                       '', 0, 0 FROM content, upload
                RETURNING id
            )
            SELECT content.id, content.chunk_size, content.chunk_count,
                   file.id, file.name, file.replication_factor, file.made FROM content, file, upload, job
            """,
            {
                "file_hash": bytes.fromhex(content.file_hash),
                "size": content.size,
                "chunk_size": content.chunk_size,
                "chunk_count": content.chunk_count,
                "owner": upload.owner_id,
                "name": file.name,
                "factor": file.replication_factor,
                "upload": upload.pk,
                "reserved": upload.reserved,
                "piece_size": upload.piece_size,
                "piece_checksums": bytes(upload.piece_checksums),
                "job": job.pk,
            },
        )
        row = cursor.fetchone()
    content.pk, content.chunk_size, content.chunk_count, file.pk, file.name, file.replication_factor, made = row
    file.content = upload.content = content
    upload.replication_factor = file.replication_factor
    return bool(made)
