from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from storage.cluster.topology import Topology
from storage.exceptions import ForeignDatabase, VolumeOffline
from storage.models import Chunk, Cluster, Content, File
from storage.models.clock import Clock
from storage.replicas.removing import remove_replicas
from storage.services import catalogue, reclaim
from storage.volumes.filesystem import FilesystemVolume
from tests.support.cluster import ClusterUnderTest, content_of


def chunk_of(file: File) -> str:
    return file.content.manifest()[0][0]


def trash(cluster: ClusterUnderTest) -> list[str]:
    return [path.name for path in cluster.configuration.nodes_dir.glob("*/trash/*")]


def test_deleting_the_last_file_frees_its_bytes_after_the_grace(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(3))
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    catalogue.delete(file)
    assert not Content.objects.exists()
    assert Chunk.objects.filter(condemned_at__isnull=False).count() == 3
    assert reclaim.reclaim(3600) == reclaim.Outcome(), "within the grace nothing is touched"
    first = reclaim.reclaim(0)
    assert (first.removed, first.forgotten) == (9, 3)
    assert all(cluster.holders(chunk_hash) == [] for chunk_hash in hashes)
    assert not Chunk.objects.exists()
    later = reclaim.reclaim(0)
    assert first.purged + later.purged == 9
    assert trash(cluster) == []
    assert cluster.false_negatives() == []


def test_a_shared_chunk_stays_as_long_as_one_content_has_it(cluster: ClusterUnderTest) -> None:
    shared = content_of(2, "shared")[:4096]
    first = cluster.upload(shared + b"one")
    second = cluster.upload(shared + b"two")
    catalogue.delete(first)
    reclaim.reclaim(0)
    assert cluster.download(second) == shared + b"two"


def test_a_reupload_within_the_grace_keeps_the_bytes(cluster: ClusterUnderTest) -> None:
    data = content_of(3)
    catalogue.delete(cluster.upload(data))
    file = cluster.upload(data)
    assert not Chunk.objects.filter(condemned_at__isnull=False).exists()
    reclaim.reclaim(0)
    assert cluster.download(file) == data
    assert all(len(cluster.holders(h)) == 3 for h, _ in file.content.manifest())


def test_a_pin_that_comes_after_the_plan_stops_the_removal(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 7: reclaim looks for references again while it holds the lock of the chunk."""
    data = content_of(1)
    catalogue.delete(cluster.upload(data))
    plan = reclaim.plan

    def late(*args: object) -> reclaim.Plan:
        todo = plan(*args)  # type: ignore[arg-type]
        accepted = cluster.accept(data)
        cluster.ingest()
        accepted.job.refresh_from_db()
        assert accepted.job.state == "succeeded"
        return todo

    monkeypatch.setattr(reclaim, "plan", late)
    outcome = reclaim.reclaim(0)
    assert (outcome.removed, outcome.forgotten) == (0, 0)
    assert cluster.download(File.objects.get()) == data


def test_one_chunk_that_is_needed_again_keeps_no_other_of_its_batch(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed, others = content_of(1), content_of(5, "others")
    for data in (needed, others):
        catalogue.delete(cluster.upload(data))
    plan = reclaim.plan

    def late(*args: object) -> reclaim.Plan:
        todo = plan(*args)  # type: ignore[arg-type]
        cluster.upload(needed)
        return todo

    monkeypatch.setattr(reclaim, "plan", late)
    outcome = reclaim.reclaim(0)
    assert (outcome.removed, outcome.forgotten) == (15, 5)
    assert cluster.download(File.objects.get()) == needed
    assert [len(cluster.holders(chunk_hash)) for chunk_hash in Chunk.objects.values_list("hash", flat=True)] == [3]


def test_a_node_that_fails_during_a_batch_keeps_its_copies_and_all_rows(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 13 and 25: the copies on the node stay counted, and the rows of all chunks stay until the node answers."""
    catalogue.delete(cluster.upload(content_of(20)))
    trash_of = FilesystemVolume.trash

    def failing(volume: FilesystemVolume, chunk_hash: str, token: str) -> bool:
        if volume.root.name == "node_000":
            raise VolumeOffline("gone")
        return trash_of(volume, chunk_hash, token)

    kept = [path.name for path in cluster.folder("node_000").glob("chunks/*/*")]
    with monkeypatch.context() as patch:
        patch.setattr(FilesystemVolume, "trash", failing)
        outcome = reclaim.reclaim(0)
    assert (outcome.removed, outcome.forgotten) == (3 * 20 - len(kept), 0)
    assert sorted(path.name for path in cluster.folder("node_000").glob("chunks/*/*")) == sorted(kept)
    assert cluster.false_negatives() == []
    Topology.load().member("node_000").lane.breaker.half_open()
    reclaim.reclaim(0)
    assert not Chunk.objects.exists()
    assert sum(member.stored_bytes for member in cluster.members()) == 0


def test_an_offline_node_keeps_the_condemned_row_until_it_is_back(cluster: ClusterUnderTest) -> None:
    """RACES 13: the row of a condemned chunk stays until every node has said that it has no copy."""
    file = cluster.upload(content_of(1))
    chunk_hash = chunk_of(file)
    away = cluster.holders(chunk_hash)[0]
    cluster.take_offline(away)
    catalogue.delete(file)
    reclaim.reclaim(0)
    assert Chunk.objects.filter(hash=chunk_hash).exists()
    cluster.bring_back(away)
    assert cluster.holders(chunk_hash) == [away]
    reclaim.reclaim(0)
    assert cluster.holders(chunk_hash) == []
    assert not Chunk.objects.filter(hash=chunk_hash).exists()


def test_another_cluster_never_reclaims(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(1))
    catalogue.delete(file)
    identity = cluster.folder("node_004") / "identity"
    identity.write_text(identity.read_text().replace(str(Cluster.load().uuid), "another"))
    with pytest.raises(ForeignDatabase):
        reclaim.reclaim(0)


def test_what_has_no_row_is_left_alone(cluster: ClusterUnderTest) -> None:
    """RACES 11: an orphan must be condemned before it can go."""
    orphan = hashlib.sha256(b"orphan").hexdigest()
    member = cluster.members()[0]
    member.lane.volume.write({orphan: b"orphan"})
    reclaim.reclaim(0)
    assert not remove_replicas(Topology.load(), {orphan: [member]})
    assert cluster.holders(orphan) == [member.node_id]


def test_a_referenced_chunk_never_falls_below_its_target(cluster: ClusterUnderTest) -> None:
    """RACES 9: a copy is removed only if at least the target of other, verified copies remains."""
    file = cluster.upload(content_of(1))
    chunk_hash = chunk_of(file)
    for node_id in cluster.holders(chunk_hash):
        assert not remove_replicas(Topology.load(), {chunk_hash: [Topology.load().member(node_id)]})
    assert len(cluster.holders(chunk_hash)) == 3


def test_a_surplus_copy_goes_only_if_the_others_are_good(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(1), factor=4)
    chunk_hash = chunk_of(file)
    File.objects.update(replication_factor=3)
    one, other, *_ = cluster.holders(chunk_hash)
    path = cluster.replica_path(other, chunk_hash)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert not remove_replicas(Topology.load(), {chunk_hash: [Topology.load().member(one)]})
    assert remove_replicas(Topology.load(), {chunk_hash: [Topology.load().member(other)]}), "three good ones are left"
    assert one in cluster.holders(chunk_hash)


def test_trash_that_turns_out_to_be_needed_is_put_back(cluster: ClusterUnderTest) -> None:
    """RACES 10: before the purge deletes a copy, it looks for references again."""
    file = cluster.upload(content_of(1))
    chunk_hash = chunk_of(file)
    for node_id in cluster.holders(chunk_hash):
        Topology.load().member(node_id).lane.volume.trash(chunk_hash, f"{0:012x}token")
    assert cluster.holders(chunk_hash) == []
    assert cluster.download(file) == content_of(1), "a read that misses looks into the trash"
    reclaim.reclaim(0)
    assert len(cluster.holders(chunk_hash)) == 3
    assert cluster.false_negatives() == []


def test_trash_is_purged_by_the_database_clock_not_by_file_times(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(1))
    catalogue.delete(file)
    Chunk.objects.update(condemned_at=Clock() - timedelta(hours=2))
    reclaim.reclaim(3600)
    assert len(trash(cluster)) == 3, "just trashed: the second grace runs"
    for path in cluster.configuration.nodes_dir.glob("*/trash/*"):
        path.rename(path.with_name(f"{path.name.partition('~')[0]}~{1:012x}{path.name[-8:]}"))
    reclaim.reclaim(3600)
    assert trash(cluster) == []


def test_the_tallies_follow_what_is_removed(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(4))
    assert sum(member.stored_bytes for member in cluster.members()) == 3 * file.content.size
    catalogue.delete(file)
    reclaim.reclaim(0)
    assert sum(member.stored_bytes for member in cluster.members()) == 0


def test_a_plan_changes_nothing(cluster: ClusterUnderTest) -> None:
    """Invariant 10: a plan changes neither rows nor volumes."""
    file = cluster.upload(content_of(2))
    hashes = sorted(chunk_hash for chunk_hash, _ in file.content.manifest())
    catalogue.delete(file)
    rows = list(Chunk.objects.order_by("id").values_list("hash", "condemned_at"))
    todo = reclaim.plan(Topology.load(), 0)
    assert [chunk_hash for chunk_hash, _ in todo.chunks] == hashes
    assert list(Chunk.objects.order_by("id").values_list("hash", "condemned_at")) == rows
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash in hashes)
    assert trash(cluster) == []


def test_rows_that_wait_for_a_silent_node_hold_up_no_other(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "CHUNKS_PER_PASS", 2)
    file = cluster.upload(content_of(8))
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    cluster.take_offline("node_000")
    catalogue.delete(file)
    for _ in range(200):
        reclaim.reclaim(0)
        if not any(set(cluster.holders(chunk_hash)) for chunk_hash in hashes):
            break
    assert not any(set(cluster.holders(chunk_hash)) for chunk_hash in hashes), "what is there has gone"
    assert Chunk.objects.filter(condemned_at__isnull=False).count() > 0, "what may be there is remembered"
