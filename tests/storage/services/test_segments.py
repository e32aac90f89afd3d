"""Segments: the first parts of a large body are ingested while its other parts still arrive (RACES 1, 2, 4, 5)."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from django.db import OperationalError, connection

from storage.exceptions import NotPossible
from storage.models import Chunk, File, Job, ManifestEntry, Pin, Segment, Upload, nobody, segment
from storage.models.clock import Clock
from storage.services import cancel, ingest, intake
from storage.staging import files
from storage.volumes import FilesystemVolume
from tests.support.cluster import CHUNK_SIZE, AcceptedRows, ClusterUnderTest, content_of

SEGMENT = 4  # The number of chunks per segment.


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SEGMENT_BYTES", SEGMENT * CHUNK_SIZE)
    monkeypatch.setattr(intake, "HELD_BYTES", 1000)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Chunk hash → number of copies written."""
    counter: Counter[str] = Counter()
    write = FilesystemVolume.write

    def counted(volume: FilesystemVolume, replicas: Mapping[str, bytes], **options: Any) -> None:
        write(volume, replicas, **options)
        counter.update(replicas.keys())

    monkeypatch.setattr(FilesystemVolume, "write", counted)
    return counter


def nothing_left(cluster: ClusterUnderTest) -> bool:
    jobs = Job.objects.filter(kind=Job.Kind.INGEST_SEGMENT)
    rows = (Upload.objects.all(), Segment.objects.all(), Pin.objects.all(), jobs)
    return not any(found.exists() for found in rows) and cluster.staged() == []


def stored(cluster: ClusterUnderTest, accepted: AcceptedRows) -> File:
    accepted.job.refresh_from_db()
    assert accepted.job.state == Job.State.SUCCEEDED, (accepted.job.state, accepted.job.error)
    return File.objects.select_related("content").get(pk=accepted.file.pk)


@pytest.mark.parametrize("chunks", [SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT - 1, 5 * SEGMENT + 2])
@pytest.mark.parametrize("short", [0, 1, CHUNK_SIZE - 1])
def test_what_was_stored_ahead_is_stored_once(
    cluster: ClusterUnderTest, written: Counter[str], chunks: int, short: int
) -> None:
    data = (content_of(chunks + 1) + b"x")[: chunks * CHUNK_SIZE - short]
    whole = len(data) // (SEGMENT * CHUNK_SIZE)
    with intake.Reception(nobody(), declared_size=len(data)) as reception:
        for start in range(0, len(data), 10_000):
            reception.write(data[start : start + 10_000])
            cluster.ingest()
        assert len(written) == whole * SEGMENT, "before the body is whole, all segments that are"
        accepted = AcceptedRows.of(reception.accept("large.bin", 3, durable=False))
    cluster.ingest()
    file = stored(cluster, accepted)
    assert cluster.download(file) == data
    assert (file.content.min_replication, file.content.max_replication) == (3, 3)
    assert set(written.values()) == {3}
    assert nothing_left(cluster)
    assert cluster.false_negatives() == []


def test_the_upload_sees_to_segments_that_nobody_has_begun(cluster: ClusterUnderTest, written: Counter[str]) -> None:
    data = content_of(3 * SEGMENT + 1)
    accepted = cluster.accept(data)
    jobs = Job.objects.claim(Job.Queue.INGEST, most=1, most_bytes=0)
    assert [job.kind for job in jobs] == [Job.Kind.INGEST], "more urgent than segments"
    ingest.ingest(jobs)
    assert cluster.download(stored(cluster, accepted)) == data
    assert set(written.values()) == {3}
    assert nothing_left(cluster)


def test_it_waits_for_a_segment_that_another_worker_is_at(cluster: ClusterUnderTest, written: Counter[str]) -> None:
    data = content_of(SEGMENT + 1)
    accepted = cluster.accept(data)
    theirs = Job.objects.claim_segment(accepted.upload)
    worker = threading.Thread(target=in_another_session, args=(cluster,))
    worker.start()
    worker.join(0.5)
    assert worker.is_alive()
    assert not ManifestEntry.objects.filter(position__lt=SEGMENT).exists()
    ingest.ingest(theirs)
    worker.join(20)
    assert cluster.download(stored(cluster, accepted)) == data
    assert set(written.values()) == {3}


def in_another_session(cluster: ClusterUnderTest) -> None:
    try:
        cluster.ingest()
    finally:
        connection.close()


def test_a_segment_whose_worker_is_lost_is_done_by_the_upload_and_the_zombie_commits_nothing(
    cluster: ClusterUnderTest,
) -> None:
    data = content_of(SEGMENT + 1)
    accepted = cluster.accept(data)
    zombie = Job.objects.claim_segment(accepted.upload)
    Job.objects.filter(pk=zombie[0].pk).update(lease_expires_at=Clock() - timedelta(seconds=1))
    jobs = Job.objects.claim(Job.Queue.INGEST, most=1, most_bytes=0)
    assert [job.kind for job in jobs] == [Job.Kind.INGEST]
    ingest.ingest(jobs)
    file = stored(cluster, accepted)
    ingest.ingest(zombie)
    assert cluster.download(file) == data
    assert nothing_left(cluster)


def test_more_replicas_than_were_assumed_are_added(cluster: ClusterUnderTest) -> None:
    data = content_of(2 * SEGMENT + 1)
    with intake.Reception(nobody(), declared_size=len(data)) as reception:
        reception.write(data)
        cluster.ingest()
        accepted = AcceptedRows.of(reception.accept("large.bin", 5, durable=False))
    cluster.ingest()
    file = stored(cluster, accepted)
    assert (file.content.min_replication, file.content.max_replication) == (5, 5)
    assert all(len(cluster.holders(chunk_hash)) == 5 for chunk_hash, _ in file.content.manifest())


def test_fewer_replicas_than_were_assumed_are_left_after_a_rebalance(cluster: ClusterUnderTest) -> None:
    data = content_of(2 * SEGMENT + 1)
    with intake.Reception(nobody(), declared_size=len(data)) as reception:
        reception.write(data)
        cluster.ingest()
        accepted = AcceptedRows.of(reception.accept("large.bin", 2, durable=False))
    cluster.ingest()
    cluster.maintain()
    file = stored(cluster, accepted)
    assert all(len(cluster.holders(chunk_hash)) == 2 for chunk_hash, _ in file.content.manifest())
    assert file.content.max_replication == 2
    assert cluster.download(file) == data


def test_a_factor_that_is_known_from_the_start_holds_from_the_start(cluster: ClusterUnderTest) -> None:
    data = content_of(SEGMENT + 1)
    with intake.Reception(nobody(), declared_size=len(data), replication_factor=2) as reception:
        reception.write(data)
        cluster.ingest()
        assert {len(cluster.holders(chunk.hash)) for chunk in Chunk.objects.all()} == {2}


def test_a_client_that_vanishes_leaves_nothing_but_condemned_chunks(cluster: ClusterUnderTest) -> None:
    data = content_of(2 * SEGMENT)
    with intake.Reception(nobody(), declared_size=len(data)) as reception:
        reception.write(data[: SEGMENT * CHUNK_SIZE])
        cluster.ingest()
        reception.write(data[SEGMENT * CHUNK_SIZE :] + b"more")
    assert nothing_left(cluster)
    assert Chunk.objects.count() == SEGMENT
    assert not Chunk.objects.filter(condemned_at=None).exists()


def test_a_worker_whose_upload_was_dropped_meanwhile_stores_nothing_for_good(cluster: ClusterUnderTest) -> None:
    data = content_of(SEGMENT + 1)
    with intake.Reception(nobody(), declared_size=len(data)) as reception:
        reception.write(data)
        jobs = Job.objects.claim_segment(Upload.objects.get())
        assert len(jobs) == 1
    ingest.ingest(jobs)
    assert nothing_left(cluster)
    assert not Chunk.objects.filter(condemned_at=None).exists()


def test_a_content_that_was_cut_otherwise_keeps_its_chunks(cluster: ClusterUnderTest, settings: Any) -> None:
    data = content_of(3 * SEGMENT)
    first = cluster.upload(data)
    manifest = first.content.manifest()
    settings.OCC = dataclasses.replace(settings.OCC, chunk_size=3 * CHUNK_SIZE // 2)
    again = cluster.upload(data)
    assert again.content.manifest() == manifest
    assert cluster.download(again) == data
    strange = Chunk.objects.filter(entries=None)
    assert strange.exists() and not strange.filter(condemned_at=None).exists()
    assert nothing_left(cluster)


def test_staged_bytes_of_a_segment_that_are_not_what_came_in_fail_the_upload(cluster: ClusterUnderTest) -> None:
    accepted = cluster.accept(content_of(2 * SEGMENT + 1))
    with files.path(accepted.upload.pk).open("r+b") as staged:
        staged.seek(CHUNK_SIZE)
        staged.write(b"rotten")
    cluster.ingest()
    accepted.job.refresh_from_db()
    assert accepted.job.state == Job.State.FAILED
    assert accepted.job.error is not None and accepted.job.error["title"] == "Staging damaged"


def test_an_upload_whose_segments_lack_nodes_waits_for_nodes(cluster: ClusterUnderTest) -> None:
    data = content_of(2 * SEGMENT)
    accepted = cluster.accept(data + b"more")
    for node_id in ("node_000", "node_001", "node_002", "node_003"):
        cluster.take_offline(node_id)
    cluster.ingest()
    accepted.job.refresh_from_db()
    assert (accepted.job.state, accepted.job.waiting_for, accepted.job.attempts) == (Job.State.QUEUED, "nodes", 0)
    for node_id in ("node_000", "node_001", "node_002", "node_003"):
        cluster.bring_back(node_id)
    Job.objects.update(not_before=Clock())
    cluster.ingest()
    assert cluster.download(stored(cluster, accepted)) == data + b"more"


@pytest.mark.parametrize("failing", [0, 1])
def test_without_postgresql_for_a_moment_the_rest_waits_until_the_body_is_whole(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    cut_off, calls = Segment.objects.cut_off, count()

    def fail_once(*arguments: Any) -> bool:
        if next(calls) == failing:
            raise OperationalError("away")
        return cut_off(*arguments)

    monkeypatch.setattr(Segment.objects, "cut_off", fail_once)
    data = content_of(3 * SEGMENT + 1)
    accepted = cluster.accept(data)
    assert Segment.objects.count() == failing
    cluster.ingest()
    assert cluster.download(stored(cluster, accepted)) == data


def test_a_segment_that_is_gone_is_done_with_what_follows_it(cluster: ClusterUnderTest) -> None:
    data = content_of(4 * SEGMENT)
    accepted = cluster.accept(data)
    Job.objects.get(segment__position=SEGMENT).delete()
    cluster.ingest()
    assert cluster.download(stored(cluster, accepted)) == data
    assert nothing_left(cluster)


def test_a_segment_is_not_cancelled_by_itself(cluster: ClusterUnderTest) -> None:
    data = content_of(SEGMENT + 1)
    accepted = cluster.accept(data)
    segment_job = Job.objects.get(kind=Job.Kind.INGEST_SEGMENT)
    with pytest.raises(NotPossible):
        cancel.cancel(segment_job)
    cluster.ingest()
    assert cluster.download(stored(cluster, accepted)) == data


def test_the_job_of_a_segment_has_no_more_than_its_own_checksums_and_goes_when_it_is_done(
    cluster: ClusterUnderTest,
) -> None:
    cluster.accept(content_of(3 * SEGMENT))
    upload = Upload.objects.get()
    assert len(upload.piece_checksums) == 3 * SEGMENT * 4
    (job,) = Job.objects.claim_segment(upload)
    gc.disable()
    try:
        ingest.ingest([job])
        assert job.upload is not None
        assert len(job.upload.piece_checksums) == 0
        mine = weakref.ref(job)
        del job
        assert mine() is None, "it waits for the garbage collector, and so does each one of a large body"
    finally:
        gc.enable()
