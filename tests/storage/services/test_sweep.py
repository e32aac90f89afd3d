from __future__ import annotations

import dataclasses
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db.models import F

from storage import phases
from storage.exceptions import BodyStalled, ContentGone
from storage.jobs import stillness, wakeups
from storage.models import Chunk, Cluster, Content, File, Holding, Job, Node, Upload, nobody
from storage.models.clock import Clock
from storage.services import ingest, intake, retrieve, sweep, verify
from tests.support.cluster import ClusterUnderTest, content_of


def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(stillness, "monotonic", lambda: now + 3600)


def test_an_upload_whose_client_and_process_are_gone_is_dropped(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "HELD_BYTES", 0)
    reception = intake.Reception(nobody(), declared_size=100)
    reception.write(b"half of it")
    sweep.sweep()
    assert cluster.staged(), "it still arrives"
    an_hour_later(monkeypatch)
    sweep.sweep()
    assert not Upload.objects.exists()
    assert cluster.staged() == []
    reception.abandon()


def test_an_upload_that_was_dropped_while_it_arrived_is_not_accepted(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"x" * (intake.HELD_BYTES + 1)
    with intake.Reception(nobody(), declared_size=len(data)) as reception:
        reception.write(data)
        sweep.sweep()
        an_hour_later(monkeypatch)
        sweep.sweep()
        with pytest.raises(BodyStalled):
            reception.accept("late", 3, durable=False)
    assert [model.objects.count() for model in (Upload, Content, File, Job)] == [0, 0, 0, 0]
    assert cluster.staged() == []


def test_a_large_body_has_its_room_promised_before_its_first_byte(cluster: ClusterUnderTest) -> None:
    """RACES 7: a large body reserves room. A small body reserves no room, because the headroom has enough."""
    with intake.Reception(nobody(), declared_size=10 << 20):
        assert Upload.objects.get().reserved == 3 * (10 << 20)
    with intake.Reception(nobody(), declared_size=1000):
        assert not Upload.objects.exists()


def test_a_reception_says_that_it_is_alive(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(intake, "HELD_BYTES", 0)
    with intake.Reception(nobody(), declared_size=100) as reception:
        reception.write(b"some")
        sweep.sweep()
        an_hour_later(monkeypatch)
        reception.write(b"more")
        sweep.sweep()
        assert Upload.objects.exists()


def test_staged_bytes_without_a_row_are_removed_and_others_kept(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = cluster.accept(content_of(2))
    forgotten = cluster.configuration.staging_dir / "11111111-1111-1111-1111-111111111111"
    forgotten.write_bytes(b"forgotten")
    sweep.sweep()
    assert forgotten.exists(), "its row may be about to be committed"
    monkeypatch.setattr(sweep, "UNRECORDED", 0.0)
    sweep.sweep()
    assert cluster.staged() == [str(accepted.upload.pk)]


def test_the_bytes_of_a_failed_job_are_kept_until_they_expire(cluster: ClusterUnderTest) -> None:
    """RACES 18: the staged bytes of an accepted upload whose job has failed are kept for a week."""
    accepted = cluster.accept(content_of(2))
    Job.objects.filter(pk=accepted.job.pk).update(state=Job.State.FAILED, finished_at=Clock())
    sweep.sweep()
    assert cluster.staged()
    Job.objects.filter(pk=accepted.job.pk).update(finished_at=Clock() - timedelta(days=8))
    sweep.sweep()
    assert cluster.staged() == []
    assert not File.objects.exists()
    assert not Content.objects.exists()


def test_an_upload_that_was_dropped_half_way_leaves_its_chunks_to_reclaim(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = cluster.accept(content_of(4))

    def die(phase: str) -> None:
        if phase == "ingest.record":
            raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(phases, "enter", die)
        ingest.run_queued()
    assert intake.withdraw(accepted.recorded)
    assert Chunk.objects.filter(condemned_at__isnull=False).count() == 4
    assert not File.objects.exists()
    assert not Content.objects.exists()
    assert cluster.staged() == []


def test_lost_wake_ups_and_leases_are_made_good(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = cluster.accept(content_of(2))
    woken: list[str] = []
    monkeypatch.setattr(wakeups, "wake", woken.append)
    Job.objects.claim(Job.Queue.INGEST, most=1, most_bytes=0)
    sweep.sweep()
    assert Job.Queue.INGEST not in woken
    Job.objects.filter(pk=accepted.job.pk).update(lease_expires_at=Clock() - timedelta(seconds=1))
    sweep.sweep()
    assert Job.Queue.INGEST in woken
    cluster.ingest()
    assert Job.objects.get(pk=accepted.job.pk).state == Job.State.SUCCEEDED


def test_a_content_below_its_factor_is_found_from_its_state(cluster: ClusterUnderTest) -> None:
    """RACES 18: the content's row shows that copies are missing. No job has to record that copies are missing."""
    for node_id in ("node_000", "node_001", "node_002"):
        cluster.take_offline(node_id)
    file = cluster.upload(content_of(3))
    assert file.content.min_replication == 2
    sweep.sweep()
    assert not Job.objects.filter(kind=Job.Kind.REBALANCE).exists(), "there is no third node"
    for node_id in ("node_000", "node_001", "node_002"):
        cluster.bring_back(node_id)
    Job.objects.all().delete()
    Content.objects.update(health_epoch=10**6)
    Cluster.objects.update(topology_epoch=10**6)
    sweep.sweep()
    cluster.maintain()
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash, _ in file.content.manifest())
    file.content.refresh_from_db()
    assert file.content.min_replication == 3


def test_withdrawing_leaves_the_file_that_the_owner_had_before(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    file = cluster.upload(data)
    again = cluster.accept(data)
    assert intake.withdraw(again.recorded)
    assert cluster.download(file) == data
    assert cluster.staged() == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_last_of_several_uploads_that_are_withdrawn_takes_the_file_with_it(
    cluster: ClusterUnderTest, order: tuple[int, int]
) -> None:
    accepted = [cluster.accept(content_of(2)), cluster.accept(content_of(2))]
    for i in order:
        assert File.objects.exists()
        assert intake.withdraw(accepted[i].recorded)
    assert not File.objects.exists()
    assert not Content.objects.exists()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_last_of_several_uploads_that_expire_takes_the_file_with_it(
    cluster: ClusterUnderTest, order: tuple[int, int]
) -> None:
    accepted = [cluster.accept(content_of(2)), cluster.accept(content_of(2))]
    for i in order:
        assert File.objects.exists()
        long_ago = Clock() - timedelta(days=30)
        Job.objects.filter(pk=accepted[i].job.pk).update(state=Job.State.FAILED, finished_at=long_ago)
        sweep.sweep()
    assert not File.objects.exists()
    assert not Upload.objects.exists()


def test_withdrawing_what_has_succeeded_meanwhile_does_nothing(cluster: ClusterUnderTest) -> None:
    accepted = cluster.accept(content_of(2))
    cluster.ingest()
    assert not intake.withdraw(accepted.recorded)
    assert cluster.download(accepted.file) == content_of(2)


def test_a_node_that_only_restarts_has_nothing_copied_but_what_is_in_danger(
    cluster: ClusterUnderTest, settings: Any
) -> None:
    safe, endangered = cluster.upload(content_of(1, "safe")), cluster.upload(content_of(1, "endangered"))
    Content.objects.filter(pk=safe.content_id).update(min_replication=2)
    Content.objects.filter(pk=endangered.content_id).update(min_replication=1)
    Node.objects.filter(node_id="node_000").update(online=False, online_changed_at=Clock())
    sweep.sweep()
    assert [job.file_hash for job in Job.objects.open()] == [endangered.content.file_hash]
    settings.OCC = dataclasses.replace(settings.OCC, repair_delay=0)
    sweep.sweep()
    assert {job.file_hash for job in Job.objects.open()} == {safe.content.file_hash, endangered.content.file_hash}


def test_jobs_that_ended_long_ago_are_forgotten_audits_later(cluster: ClusterUnderTest) -> None:
    def job(kind: str, days: int, state: str = Job.State.SUCCEEDED) -> Job:
        ended = Clock() - timedelta(days=days)
        made = Job.objects.create(kind=kind, queue=Job.Queue.MAINTENANCE, state=state, subject=f"{kind} {days}")
        Job.objects.filter(pk=made.pk).update(created_at=ended - timedelta(hours=1), finished_at=ended)
        return made

    kept = [job(Job.Kind.REPAIR, 6), job(Job.Kind.AUDIT, 8), job(Job.Kind.REPAIR, 8, Job.State.QUEUED)]
    job(Job.Kind.REPAIR, 8)
    job(Job.Kind.AUDIT, 401)
    sweep.sweep()
    assert set(Job.objects.all()) == set(kept)


def a_chunk_without_copies(cluster: ClusterUnderTest) -> tuple[File, str, dict[str, bytes]]:
    """Upload a file, remove all copies of one of its chunks, and let a verification find the loss.

    Returns the file, the chunk hash, and node id → bytes of the removed copies.
    """
    file = cluster.upload(content_of(3))
    chunk_hash = file.content.manifest()[1][0]
    copies = {node_id: cluster.replica_path(node_id, chunk_hash) for node_id in cluster.holders(chunk_hash)}
    removed = {node_id: path.read_bytes() for node_id, path in copies.items()}
    for path in copies.values():
        path.unlink()
    assert not verify.verify(Holding.of_file(file)).health.retrievable
    cluster.maintain()
    return file, chunk_hash, removed


def later(**by: int) -> None:
    """Make all summaries older by ``by``, the arguments of a ``timedelta``."""
    Content.objects.update(health_at=F("health_at") - timedelta(**by), lost_at=F("lost_at") - timedelta(**by))


def test_a_lost_content_heals_by_itself_once_a_copy_is_back(cluster: ClusterUnderTest) -> None:
    file, chunk_hash, removed = a_chunk_without_copies(cluster)
    sweep.sweep()
    assert not Job.objects.open().exists(), "it was looked at just now"
    node_id, data = next(iter(removed.items()))
    cluster.replica_path(node_id, chunk_hash).write_bytes(data)
    later(seconds=61)
    for _ in range(2):
        sweep.sweep()
        cluster.maintain()
    assert len(cluster.holders(chunk_hash)) == 3
    file.content.refresh_from_db()
    assert (file.content.retrievable, file.content.min_replication, file.content.lost_at) == (True, 3, None)
    assert cluster.download(file) == content_of(3)


def test_a_download_that_succeeds_has_a_lost_content_looked_at_at_once(cluster: ClusterUnderTest) -> None:
    file, chunk_hash, removed = a_chunk_without_copies(cluster)
    node_id, data = next(iter(removed.items()))
    cluster.replica_path(node_id, chunk_hash).write_bytes(data)
    whole = range(file.content.size)
    b"".join(retrieve.retrieve(retrieve.open_file(file.owner, file.content.file_hash), [whole[:10]]))
    assert not Job.objects.open().filter(kind=Job.Kind.REFRESH_HEALTH).exists(), "a part proves nothing"
    for _ in range(2):
        assert cluster.download(file) == content_of(3)
    assert Job.objects.open().filter(kind=Job.Kind.REFRESH_HEALTH).count() == 1
    cluster.maintain()
    sweep.sweep()
    cluster.maintain()
    assert len(cluster.holders(chunk_hash)) == 3


def test_a_download_that_breaks_off_has_nothing_looked_at(cluster: ClusterUnderTest) -> None:
    file, _, _ = a_chunk_without_copies(cluster)
    with pytest.raises(ContentGone):
        cluster.download(file)
    assert not Job.objects.open().filter(kind=Job.Kind.REFRESH_HEALTH).exists()


def test_a_node_that_returns_has_lost_contents_looked_at_at_once(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(1), factor=1)
    (only,) = cluster.holders(file.content.manifest()[0][0])
    cluster.take_offline(only)
    cluster.maintain()
    file.content.refresh_from_db()
    assert not file.content.retrievable
    cluster.bring_back(only)
    cluster.maintain()
    file.content.refresh_from_db()
    assert (file.content.retrievable, file.content.lost_at) == (True, None)


def test_sessions_that_have_ended_are_deleted(cluster: ClusterUnderTest) -> None:
    for seconds in (-10, 1000):
        session = SessionStore()
        session.set_expiry(seconds)
        session.save()
    sweep.sweep()
    assert [session.get_decoded()["_session_expiry"] for session in Session.objects.all()] == [1000]
