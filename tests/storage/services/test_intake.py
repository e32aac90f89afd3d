from __future__ import annotations

from django.db import connection

from storage.models import prepared
from storage.services import intake
from tests.cluster import ClusterUnderTest


def test_an_upload_that_is_kept_is_in_the_log_on_disk(cluster: ClusterUnderTest) -> None:
    """It was accepted without waiting for the disk, as its client was to wait for the ingest."""
    connection.ensure_connection()
    prepared.rows("SET synchronous_commit TO 'local'", [])
    accepted = cluster.accept(b"some bytes")
    (written,) = prepared.rows("SELECT pg_current_wal_insert_lsn()::text", [])
    intake.keep(accepted.upload.pk)
    assert prepared.rows("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", written) == [(True,)]
    prepared.rows("RESET synchronous_commit", [])
