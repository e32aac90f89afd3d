from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from storage import counters, phases
from storage.exceptions import LeaseLost, TurnEnded, VolumeOffline
from storage.models import Chunk, Content, Job, Node
from storage.models.clock import Clock
from storage.replicas import census, restoring
from storage.services import audit, catalogue, probe, reclaim, sweep
from storage.services.audit import COUNTED
from tests.support.cluster import ClusterUnderTest, content_of

NOTHING_WRONG = dict.fromkeys(COUNTED, 0)


def claim_one() -> Job:
    (job,) = Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)
    return job


def write_stranger(cluster: ClusterUnderTest, node_id: str, data: bytes = b"nobody knows me") -> str:
    chunk_hash = hashlib.sha256(data).hexdigest()
    cluster.replica_path(node_id, chunk_hash).write_bytes(data)
    return chunk_hash


def first_copy(cluster: ClusterUnderTest, data: bytes) -> tuple[str, str, Path]:
    """A chunk of an upload, a node that has it, and the path of the copy."""
    chunk_hash = cluster.upload(data).content.manifest()[0][0]
    node_id = cluster.holders(chunk_hash)[0]
    return chunk_hash, node_id, cluster.replica_path(node_id, chunk_hash)


def test_an_audit_of_a_healthy_node_reads_everything_and_finds_nothing(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(10))
    held = Node.objects.get(node_id="node_001")
    result = cluster.result_of(audit.request("node_001"))
    assert result == NOTHING_WRONG | {"replicas": held.chunks, "bytes": held.bytes}
    assert Job.objects.filter(kind=Job.Kind.REBUILD_SKETCH, subject="node_001").exists()


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + b"?", lambda data: data[:100], lambda data: b""])
def test_a_damaged_copy_is_found_quarantined_and_replaced(cluster: ClusterUnderTest, damage: Any) -> None:
    data = content_of(6)
    chunk_hash, node_id, copy = first_copy(cluster, data)
    good = copy.read_bytes()
    copy.write_bytes(damage(good))
    audit.request(node_id)
    cluster.maintain()
    assert len(list((cluster.folder(node_id) / "quarantine").iterdir())) == 1
    holders = cluster.holders(chunk_hash)
    assert len(holders) == 3
    assert all(cluster.replica_path(holder, chunk_hash).read_bytes() == good for holder in holders)
    assert cluster.false_negatives() == []


def test_a_missing_copy_is_found_from_any_node_and_made_good(cluster: ClusterUnderTest) -> None:
    """RACES 17: no table says where copies should lie, so only a comparison of all nodes shows a missing copy."""
    chunk_hash, _, copy = first_copy(cluster, content_of(3))
    copy.unlink()
    other = next(node.node_id for node in Node.objects.all() if node.node_id not in cluster.holders(chunk_hash))
    assert cluster.result_of(audit.request(other))["short"] == 1
    sweep.sweep()
    cluster.maintain()
    assert len(cluster.holders(chunk_hash)) == 3


def test_an_orphan_is_condemned_and_leaves_by_reclaim(cluster: ClusterUnderTest) -> None:
    """RACES 11: an audit gives an orphan a condemned row. Reclaim removes only orphans with a condemned row."""
    stranger = write_stranger(cluster, "node_002")
    reclaim.reclaim(0)
    assert cluster.holders(stranger) == ["node_002"], "what has no row is left alone"
    assert cluster.result_of(audit.request("node_002"))["orphans"] == 1
    assert Chunk.objects.get(hash=stranger).condemned_at is not None
    reclaim.reclaim(0)
    assert cluster.holders(stranger) == []
    assert not Chunk.objects.filter(hash=stranger).exists()


def test_a_surplus_copy_is_trimmed(cluster: ClusterUnderTest) -> None:
    chunk_hash, _, copy = first_copy(cluster, content_of(1))
    other = next(node.node_id for node in Node.objects.all() if node.node_id not in cluster.holders(chunk_hash))
    cluster.replica_path(other, chunk_hash).write_bytes(copy.read_bytes())
    Content.objects.update(max_replication=4)
    assert cluster.result_of(audit.request(other))["surplus"] == 1
    assert len(cluster.holders(chunk_hash)) == 3
    assert Content.objects.get().max_replication == 3, "the summary is made exact again"
    assert cluster.false_negatives() == []


def test_unfinished_writes_of_dead_processes_are_removed(cluster: ClusterUnderTest) -> None:
    leftover = cluster.folder("node_000") / "chunks" / "ab" / ".tmp-0123"
    leftover.write_bytes(b"half a chunk")
    assert cluster.result_of(audit.request("node_000"))["leftovers"] == 1
    assert not leftover.exists()


def test_a_lost_chunk_is_counted_and_stops_nothing(cluster: ClusterUnderTest) -> None:
    lost, _, _ = first_copy(cluster, content_of(1))
    for node_id in cluster.holders(lost):
        cluster.replica_path(node_id, lost).unlink()
    assert cluster.result_of(audit.request("node_000"))["lost"] == 1


def test_a_plan_counts_and_changes_nothing(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(4))
    stranger = write_stranger(cluster, "node_003")
    found = audit.plan("node_003").found
    assert (found["replicas"], found["orphans"]) == (Node.objects.get(node_id="node_003").chunks, 1)
    assert not Chunk.objects.filter(hash=stranger).exists()
    assert not Job.objects.filter(queue=Job.Queue.MAINTENANCE).exists()


def test_an_audit_goes_on_where_it_stopped_and_counts_nothing_twice(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.upload(content_of(40))
    held = Node.objects.get(node_id="node_000")
    job = audit.request("node_000")
    steps = 0

    def die_after_some(phase: str) -> None:
        nonlocal steps
        steps += phase == "audit.read"
        if steps == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(phases, "enter", die_after_some)
        with pytest.raises(KeyboardInterrupt):
            audit.audit(claim_one())
    Job.objects.filter(pk=job.pk).update(lease_expires_at=Clock() - timedelta(seconds=1))
    assert Job.objects.requeue_stale() == 1
    again = claim_one()
    assert (again.done, again.total) == (9, 16)
    assert audit.audit(again) == NOTHING_WRONG | {"replicas": held.chunks, "bytes": held.bytes}


def test_an_audit_reads_no_faster_than_allowed_and_makes_way(
    cluster: ClusterUnderTest, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.upload(content_of(30))
    settings.OCC = dataclasses.replace(settings.OCC, audit_rate=4096)
    monkeypatch.setattr("storage.models.job.LOOK_AROUND", 0.0)
    job = audit.request("node_000")
    running = claim_one()
    with pytest.raises(TurnEnded):
        # Only the clock of the audit is replaced: threads that tests before this one have started sleep too.
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: queue_something_urgent())
        monkeypatch.setattr("storage.services.audit.time", clock)
        audit.audit(running)
    running.end_turn()
    assert claim_one().kind == Job.Kind.REPAIR, "what is urgent goes first"
    again = claim_one()
    assert again.pk == job.pk
    assert again.attempts == 1
    assert again.result is not None
    assert again.result["read_to"] != ""


def queue_something_urgent() -> None:
    Job.request(Job.Kind.REPAIR, "0" * 64)


def test_a_cancelled_audit_stops_at_its_next_commit(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    job = audit.request("node_000")
    running = claim_one()
    monkeypatch.setattr(phases, "enter", lambda phase: Job.cancel([job.pk]))
    with pytest.raises(LeaseLost):
        audit.audit(running)


def test_a_node_that_does_not_answer_is_audited_later(cluster: ClusterUnderTest) -> None:
    audit.request("node_004")
    cluster.folder("node_004").rename(cluster.folder("node_004").with_suffix(".away"))
    with pytest.raises(VolumeOffline):
        audit.audit(claim_one())


def test_a_node_that_comes_back_with_old_content_is_reconciled(cluster: ClusterUnderTest) -> None:
    """Deleted files stay deleted, even those whose chunks the database has forgotten."""
    kept, deleted = cluster.upload(content_of(2, "kept")), cluster.upload(content_of(2, "deleted"))
    gone = deleted.content.manifest()[0][0]
    away = cluster.holders(gone)[0]
    cluster.take_offline(away)
    catalogue.delete(deleted)
    Chunk.objects.filter(entries=None).delete()  # The volume then looks as if an old backup of it was restored.
    cluster.bring_back(away)
    cluster.maintain()
    reclaim.reclaim(0)
    assert away not in cluster.holders(gone)
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash, _ in kept.content.manifest())


def test_every_node_is_audited_once_in_an_interval_one_at_a_time(cluster: ClusterUnderTest, settings: Any) -> None:
    probe.probe()
    audits = Job.objects.filter(kind=Job.Kind.AUDIT)
    assert not audits.exists(), "new nodes are not due"
    Node.objects.update(created_at=Clock() - timedelta(seconds=settings.OCC.audit_interval + 10))
    for count in range(1, 6):
        probe.probe()
        probe.probe()
        assert audits.count() == count
        cluster.maintain()
    probe.probe()
    assert sorted(str(job.subject) for job in audits) == [f"node_00{i}" for i in range(5)]


def test_an_audit_that_waits_for_its_node_keeps_no_other_from_being_audited(cluster: ClusterUnderTest) -> None:
    Node.objects.update(created_at=Clock() - timedelta(days=400))
    Node.objects.filter(node_id="node_000").update(created_at=Clock() - timedelta(days=401))
    probe.probe()
    cluster.take_offline("node_000")
    probe.probe()
    open_audits = Job.objects.open().filter(kind=Job.Kind.AUDIT)
    assert set(open_audits.values_list("subject", flat=True)) == {"node_000", "node_001"}


def test_a_node_that_comes_back_as_an_older_snapshot_is_made_whole(cluster: ClusterUnderTest) -> None:
    files = [cluster.upload(content_of(30, "before"))]
    older = cluster.folder("node_002").with_suffix(".older")
    shutil.copytree(cluster.folder("node_002"), older)
    files.append(cluster.upload(content_of(60, "after")))
    cluster.take_offline("node_002")
    shutil.rmtree(cluster.folder("node_002").with_suffix(".away"))
    older.rename(cluster.folder("node_002").with_suffix(".away"))
    cluster.bring_back("node_002")
    reconciled = Job.objects.open().get(kind=Job.Kind.RECONCILE)
    for _ in range(2):
        cluster.maintain()
        sweep.sweep()
    cluster.maintain()
    reconciled.refresh_from_db()
    assert reconciled.state == Job.State.SUCCEEDED
    for file in files:
        assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash, _ in file.content.manifest())
        file.content.refresh_from_db()
        assert file.content.min_replication == 3
    assert Job.objects.filter(kind=Job.Kind.RECONCILE).count() == 1, "its rebuild asks for no other one"
    assert cluster.false_negatives() == []


def test_a_reconcile_alone_has_what_is_short_mended(cluster: ClusterUnderTest) -> None:
    """A reconcile marks the health summaries of short contents as outdated.

    Summaries that are exact and of this topology epoch are marked, too. The summaries are then made again, and so the
    missing copies are found and made.
    """
    file, before = cluster.upload(content_of(40)), counted_misses()
    for path in cluster.folder("node_004").glob("chunks/*/*"):
        path.unlink()
    found = cluster.result_of(Job.ensure(Job.Kind.RECONCILE, "node_004"))
    assert found["short"] > 0
    assert Job.objects.filter(kind=Job.Kind.RECONCILE).count() == 1
    sweep.sweep()
    cluster.maintain()
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash, _ in file.content.manifest())
    assert counted_misses() - before == found["short"]


def counted_misses() -> int:
    counters.flush()
    return counters.totals()["copies_missed"]


def test_the_log_names_no_more_than_some_of_the_lost(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(restoring, "LOST_NAMED", 2)
    monkeypatch.setattr(census, "prefixes", lambda *_: [""])
    hashes = [chunk_hash for chunk_hash, _ in cluster.upload(content_of(5)).content.manifest()]
    for node in Node.objects.all():
        for path in cluster.folder(node.node_id).glob("chunks/*/*"):
            path.unlink()
    audit.audit(claim_audit("node_000"))
    (line,) = [line for line in capfd.readouterr().err.splitlines() if '"chunks.lost"' in line]
    told = json.loads(line)
    assert (told["number"], told["chunks"]) == (5, sorted(hashes)[:2])


def claim_audit(node_id: str) -> Job:
    audit.request(node_id)
    return claim_one()
