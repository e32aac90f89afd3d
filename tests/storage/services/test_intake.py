from __future__ import annotations

import pytest
from django.db import connection

from storage.cluster import topology
from storage.exceptions import ClusterUnavailable, OutOfSpace
from storage.jobs import waiting
from storage.models import Job, Node, Upload, nobody
from storage.models.statements import prepared
from storage.services import intake
from storage.volumes import FilesystemVolume
from storage.volumes.base import Space
from tests.support.cluster import ClusterUnderTest


def test_an_upload_that_is_kept_is_in_the_log_on_disk(cluster: ClusterUnderTest) -> None:
    """If the client waits for the ingest, the acceptance of its upload does not wait for the disk.

    ``keep`` makes the acceptance durable.
    """
    connection.ensure_connection()
    prepared.rows("SET synchronous_commit TO 'local'", [])
    accepted = cluster.accept(b"some bytes")
    (written,) = prepared.rows("SELECT pg_current_wal_insert_lsn()::text", [])
    intake.keep(accepted.upload.pk, accepted.job.pk)
    assert prepared.rows("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", written) == [(True,)]
    prepared.rows("RESET synchronous_commit", [])


def test_an_upload_that_a_crash_of_postgresql_has_undone_is_said_to_be_lost(cluster: ClusterUnderTest) -> None:
    accepted = cluster.accept(b"x" * 5000)
    upload_id, job_id = accepted.upload.pk, accepted.job.pk
    accepted.job.delete()
    accepted.upload.delete()
    with pytest.raises(ClusterUnavailable, match="send it again"):
        waiting.wait(job_id, 1.0)
    with pytest.raises(ClusterUnavailable, match="send it again"):
        intake.keep(upload_id, job_id)


def test_an_upload_whose_ingest_has_ended_meanwhile_is_not_lost(cluster: ClusterUnderTest) -> None:
    accepted = cluster.accept(b"x" * 5000)
    upload_id, job_id = accepted.upload.pk, accepted.job.pk
    cluster.ingest()
    assert not Upload.objects.filter(pk=upload_id).exists()
    intake.keep(upload_id, job_id)
    assert Job.objects.get(pk=job_id).state == Job.State.SUCCEEDED


def test_whoever_comes_when_there_is_room_again_is_not_refused_for_what_was_seen_before(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    Node.objects.update(writable=False)  # The probe sets this field when a disk is full.
    topology.forget()
    with monkeypatch.context() as full, pytest.raises(OutOfSpace):
        full.setattr(FilesystemVolume, "space", lambda self: Space("disk", 100, 1000))
        intake.Reception(nobody(), declared_size=5000)
    Node.objects.update(writable=True)
    intake.Reception(nobody(), declared_size=5000).abandon()
