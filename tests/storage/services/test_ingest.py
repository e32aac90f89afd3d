from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import redis
from celery import current_app

from storage import phases
from storage.cluster.topology import Topology
from storage.exceptions import VolumeFull
from storage.jobs import wakeups
from storage.jobs.wakeups import wake
from storage.models import Chunk, Content, File, Job, ManifestEntry, Pin, Upload
from storage.models.clock import Clock
from storage.models.job_queue import MAX_ATTEMPTS
from storage.replicas import finding, writing
from storage.services import ingest
from storage.services.ingest import batch, queue
from storage.staging import files
from storage.tracking.store import store_of
from storage.volumes import FilesystemVolume
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of


def test_an_upload_becomes_a_ready_content_with_its_replicas_on_distinct_nodes(cluster: ClusterUnderTest) -> None:
    data = content_of(10)
    file = cluster.upload(data, "ten.bin")
    content = file.content
    assert content.state == Content.State.READY
    assert content.file_hash == hashlib.sha256(data).hexdigest()
    assert (content.min_replication, content.max_replication, content.retrievable) == (3, 3, True)
    for chunk_hash, size in content.manifest():
        assert len(cluster.holders(chunk_hash)) == 3
        assert all(cluster.replica_path(n, chunk_hash).stat().st_size == size for n in cluster.holders(chunk_hash))
    assert cluster.download(file) == data


def test_nothing_of_an_upload_is_left_once_it_is_stored(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(3))
    assert cluster.staged() == []
    assert not Upload.objects.exists()
    assert not Pin.objects.exists()


def test_an_empty_file_is_a_file(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"", "empty")
    assert (file.content.size, file.content.chunk_count, file.content.retrievable) == (0, 0, True)
    assert cluster.download(file) == b""


def test_a_chunk_that_occurs_twice_is_stored_once_and_read_twice(cluster: ClusterUnderTest) -> None:
    data = b"a" * (4 * CHUNK_SIZE) + b"tail"
    file = cluster.upload(data)
    assert file.content.chunk_count == 5
    assert Chunk.objects.count() == 2
    assert cluster.download(file) == data


def test_two_uploads_at_once_of_one_content_make_one_file(cluster: ClusterUnderTest) -> None:
    data = content_of(4)
    first, second = cluster.accept(data, "same"), cluster.accept(data, "same", factor=4)
    cluster.ingest()
    for accepted in (first, second):
        accepted.job.refresh_from_db()
        assert accepted.job.state == Job.State.SUCCEEDED
    assert (first.recorded.created, second.recorded.created) == (True, False)
    file = File.objects.get()
    assert (file.name, file.replication_factor) == ("same", 4)
    assert all(len(cluster.holders(chunk_hash)) == 4 for chunk_hash, _ in file.content.manifest())
    assert ManifestEntry.objects.count() == 4


def test_two_uploads_at_once_of_one_content_under_two_names_make_two_files(cluster: ClusterUnderTest) -> None:
    data = content_of(4)
    first, second = cluster.accept(data, "first", factor=2), cluster.accept(data, "second", factor=4)
    assert (first.recorded.deduplicated, second.recorded.deduplicated) == (False, True)
    cluster.ingest()
    assert [cluster.download(accepted.file) for accepted in (first, second)] == [data, data]
    assert all(len(cluster.holders(chunk_hash)) == 4 for chunk_hash, _ in first.file.content.manifest())


def test_a_known_content_heals_its_corrupt_copies_when_it_is_uploaded_again(cluster: ClusterUnderTest) -> None:
    """RACES 3: the upload brings good bytes. New copies must be written from the good bytes, although corrupt copies
    exist already.
    """
    data = content_of(1)
    file = cluster.upload(data)
    chunk_hash, size = file.content.manifest()[0]
    for node_id in cluster.holders(chunk_hash):
        cluster.replica_path(node_id, chunk_hash).write_bytes(b"\0" * size)
    cluster.upload(data)
    assert cluster.download(file) == data
    good = [
        node_id
        for node_id in cluster.holders(chunk_hash)
        if hashlib.sha256(cluster.replica_path(node_id, chunk_hash).read_bytes()).hexdigest() == chunk_hash
    ]
    assert len(good) >= 2


def test_damaged_staging_fails_the_job_and_shows_no_content(cluster: ClusterUnderTest) -> None:
    """RACES 5: staged bytes are compared with checksums of the bytes that came in."""
    accepted = cluster.accept(content_of(3))
    path = files.path(accepted.upload.pk)
    damaged = bytearray(path.read_bytes())
    damaged[CHUNK_SIZE + 17] ^= 1
    path.write_bytes(damaged)
    cluster.ingest()
    accepted.job.refresh_from_db()
    assert accepted.job.state == Job.State.FAILED
    assert accepted.file.content.state == Content.State.INGESTING


def test_one_bad_upload_spares_those_of_its_batch(cluster: ClusterUnderTest) -> None:
    accepted = [cluster.accept(content_of(2, salt)) for salt in "abc"]
    files.path(accepted[1].upload.pk).unlink()
    cluster.ingest()
    states = [Job.objects.get(pk=one.job.pk).state for one in accepted]
    assert states == [Job.State.SUCCEEDED, Job.State.FAILED, Job.State.SUCCEEDED]


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize(("chunks", "sent"), [(4, []), (queue.ALONE_BYTES // CHUNK_SIZE + 1, ["storage.ingest"])])
def test_who_has_claimed_much_wakes_another(
    cluster: ClusterUnderTest,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    chunks: int,
    sent: list[str],
    goes_on: bool,
) -> None:
    cluster.accept(content_of(chunks))
    heard: list[str] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, **_: heard.append(name))
    monkeypatch.setattr(wakeups, "wake", wake)
    assert ingest.run_queued(goes_on=goes_on)
    assert heard == sent


def test_nobody_is_woken_for_what_comes_while_the_one_whose_turn_it_is_is_at_little(
    cluster: ClusterUnderTest, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, **_: sent.append(name))
    monkeypatch.setattr(queue, "ALONE_SECONDS", 30)
    claim = Job.objects.claim

    def meanwhile(*args: Any, **kwargs: Any) -> list[Job]:
        jobs = claim(*args, **kwargs)
        if File.objects.count() == 1:
            cluster.accept(content_of(2, "meanwhile"))
            wake(Job.Queue.INGEST)
        return jobs

    cluster.accept(content_of(1))
    monkeypatch.setattr(Job.objects, "claim", meanwhile)
    assert ingest.run_queued(goes_on=True)
    assert sent == []
    assert ingest.run_queued(goes_on=True)
    assert not Job.objects.exclude(state=Job.State.SUCCEEDED).exists()
    assert not ingest.run_queued(goes_on=True)
    wake(Job.Queue.INGEST)
    assert sent == ["storage.ingest"], "who leaves is not waited for"


def test_what_comes_at_the_last_moment_before_others_are_woken_again_is_not_forgotten(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = wakeups.taken

    def late(queue: Job.Queue) -> None:
        cluster.accept(content_of(1))
        taken(queue)

    monkeypatch.setattr(wakeups, "taken", late)
    assert ingest.run_queued(goes_on=True)
    assert Job.objects.get().state == Job.State.SUCCEEDED


def test_too_few_nodes_is_waiting_and_costs_no_attempt(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    accepted = cluster.accept(data)
    for node_id in ("node_000", "node_001", "node_002", "node_003"):
        cluster.take_offline(node_id)
    ingest.run_queued()
    job = Job.objects.get(pk=accepted.job.pk)
    assert (job.state, job.waiting_for, job.attempts) == (Job.State.QUEUED, "nodes", 0)
    for node_id in ("node_000", "node_001", "node_002", "node_003"):
        cluster.bring_back(node_id)
    Job.objects.update(not_before=Clock())
    cluster.ingest()
    assert Job.objects.get(pk=job.pk).state == Job.State.SUCCEEDED
    assert cluster.download(accepted.file) == data


def test_an_upload_is_acknowledged_below_its_factor_if_most_copies_are_there(cluster: ClusterUnderTest) -> None:
    for node_id in ("node_000", "node_001", "node_002"):
        cluster.take_offline(node_id)
    file = cluster.upload(content_of(3))
    assert file.content.min_replication == 2


def test_a_full_node_is_passed_over(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    write = FilesystemVolume.write

    def full_on_one(volume: FilesystemVolume, replicas: Mapping[str, bytes], **options: Any) -> None:
        if volume.root.name == "node_002":
            raise VolumeFull("full")
        write(volume, replicas, **options)

    monkeypatch.setattr(FilesystemVolume, "write", full_on_one)
    file = cluster.upload(content_of(8))
    assert file.content.min_replication == 3
    assert not list((cluster.folder("node_002") / "chunks").glob("*/*"))


def test_when_all_nodes_are_full_the_job_waits_for_space(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(volume: FilesystemVolume, replicas: Mapping[str, bytes], **options: Any) -> None:
        raise VolumeFull("full")

    monkeypatch.setattr(FilesystemVolume, "write", full)
    accepted = cluster.accept(content_of(2))
    ingest.run_queued()
    job = Job.objects.get(pk=accepted.job.pk)
    assert (job.state, job.waiting_for) == (Job.State.QUEUED, "space")


def test_a_worker_that_lost_its_lease_records_nothing(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 6: the fencing token is checked in every commit."""
    accepted = cluster.accept(content_of(3))
    store = writing.store

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        stored = store(*args, **kwargs)
        Job.objects.filter(pk=accepted.job.pk).update(lease_expires_at=Clock() - timedelta(seconds=1))
        assert Job.objects.requeue_stale() == 1
        return stored

    monkeypatch.setattr(batch, "store", overtaken)
    ingest.run_queued()
    assert not ManifestEntry.objects.exists()
    assert files.path(accepted.upload.pk).exists()
    assert Job.objects.get(pk=accepted.job.pk).state == Job.State.QUEUED
    monkeypatch.setattr(batch, "store", store)
    cluster.ingest()
    assert Job.objects.get(pk=accepted.job.pk).state == Job.State.SUCCEEDED


def test_a_zombie_that_comes_to_the_end_does_not_remove_the_staging_of_its_successor(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 4: staged bytes are removed only after a commit whose fencing token matched."""
    accepted = cluster.accept(content_of(3))
    enter = phases.enter

    def overtaken(phase: str) -> None:
        if phase == "ingest.close":
            Job.objects.filter(pk=accepted.job.pk).update(fence=accepted.job.fence + 10)
        enter(phase)

    monkeypatch.setattr(phases, "enter", overtaken)
    ingest.run_queued()
    assert files.path(accepted.upload.pk).exists()
    assert Content.objects.get().state == Content.State.INGESTING
    assert Upload.objects.exists()


def test_a_manifest_with_a_gap_never_becomes_ready(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    record = ManifestEntry.record
    monkeypatch.setattr(ManifestEntry, "record", staticmethod(lambda rows: record(rows[1:])))
    accepted = cluster.accept(content_of(3))
    ingest.run_queued()
    assert Content.objects.get().state == Content.State.INGESTING
    assert Job.objects.get(pk=accepted.job.pk).state == Job.State.QUEUED


def test_a_poison_job_ends_failed_and_holds_up_nobody(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, healthy = cluster.accept(content_of(2, "poison")), cluster.accept(content_of(2, "healthy"))
    chunk_hashes = {hashlib.sha256(content_of(2, "poison")[:CHUNK_SIZE]).hexdigest()}
    store = writing.store

    def poisoned(topology: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        if chunk_hashes & set(data):
            raise RuntimeError("poison")
        return store(topology, data, *args, **kwargs)

    monkeypatch.setattr(batch, "store", poisoned)
    for _ in range(MAX_ATTEMPTS + 2):
        Job.objects.filter(state=Job.State.QUEUED).update(not_before=Clock())
        cluster.ingest()
    assert Job.objects.get(pk=poison.job.pk).state == Job.State.FAILED
    assert Job.objects.get(pk=poison.job.pk).attempts == MAX_ATTEMPTS
    assert Job.objects.get(pk=healthy.job.pk).state == Job.State.SUCCEEDED
    assert files.path(poison.upload.pk).exists(), "an operator may still want it"


def test_chunks_are_pinned_before_the_volumes_are_asked(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 2 and invariant 7: pins are committed before any volume is asked for the chunk."""
    cluster.accept(content_of(3))
    pinned: list[int] = []
    ask = finding.ask

    def look(*args: Any) -> Any:
        pinned.append(Pin.objects.count())
        return ask(*args)

    monkeypatch.setattr(writing, "ask", look)
    cluster.ingest()
    assert pinned == [3]


def test_every_replica_is_counted_before_it_is_written(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: the sketch of a node counts a replica before the replica is written there."""
    write = FilesystemVolume.write
    zero: list[str] = []

    def look(volume: FilesystemVolume, replicas: Mapping[str, bytes], **options: Any) -> None:
        seen = Topology.recent(60)
        counts = store_of(seen.cluster).lookup([volume.root.name], list(replicas)).counts[0]
        zero.extend(chunk_hash for chunk_hash, count in zip(replicas, counts, strict=True) if not count)
        write(volume, replicas, **options)

    monkeypatch.setattr(FilesystemVolume, "write", look)
    cluster.upload(content_of(5))
    assert zero == []
    assert cluster.false_negatives() == []
