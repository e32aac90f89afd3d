"""Chunks that lie in the trash and are needed again."""

from __future__ import annotations

from typing import Any

import pytest

from storage import phases
from storage.cluster.topology import Topology
from storage.models import Chunk, Content, File, Holding, Job, ManifestEntry
from storage.replicas.removing import purge_trash, remove_replicas, trash_token
from storage.replicas.restoring import bring_back
from storage.services import audit, catalogue, provision, reclaim, repair, sweep, verify
from tests.support.cluster import ClusterUnderTest, content_of


def throw_away(cluster: ClusterUnderTest, chunk_hash: str, *, copies: int = 3) -> list[str]:
    """Move copies to the trash without telling the service, as an older database would; returns their node ids."""
    gone = cluster.holders(chunk_hash)[:copies]
    for node_id in gone:
        assert Topology.load().member(node_id).lane.volume.trash(chunk_hash, trash_token())
    return gone


def trash(cluster: ClusterUnderTest) -> list[str]:
    return [path.name for path in cluster.configuration.nodes_dir.glob("*/trash/*")]


def events(capfd: pytest.CaptureFixture[str], name: str) -> list[str]:
    return [line for line in capfd.readouterr().err.splitlines() if f'"event": "{name}"' in line]


def deleted_and_needed_again(cluster: ClusterUnderTest, data: bytes) -> File:
    """Put an older database back: it refers to chunks whose copies are in the trash by now."""
    file = cluster.upload(data)
    models: tuple[type[Any], ...] = (Chunk, Content, File, ManifestEntry)
    rows = [(model, [field.attname for field in model._meta.concrete_fields]) for model in models]
    older = [(model, list(model.objects.values(*names))) for model, names in rows]
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    catalogue.delete(file)
    with pytest.MonkeyPatch.context() as patch:
        # Nothing is purged, as if the grace period had not passed.
        patch.setattr(reclaim, "purge_trash", lambda *_, **__: (0, 0))
        reclaim.reclaim(0)
    assert not Chunk.objects.exists()
    assert len(trash(cluster)) == 3 * len(hashes)
    for model, values in older:
        model.objects.bulk_create([model(**each) for each in values])
    assert not any(cluster.holders(chunk_hash) for chunk_hash in hashes)
    return File.objects.select_related("content").get()


def test_an_audit_brings_back_what_an_older_database_needs_and_calls_nothing_lost(
    cluster: ClusterUnderTest, capfd: pytest.CaptureFixture[str]
) -> None:
    data = content_of(12)
    file = deleted_and_needed_again(cluster, data)
    found = cluster.result_of(audit.request("node_000"))
    assert (found["lost"], events(capfd, "chunks.lost")) == (0, [])
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash, _ in file.content.manifest())
    assert cluster.download(file) == data
    assert cluster.false_negatives() == []
    assert sum(member.stored_chunks for member in cluster.members()) == 36


def test_making_summaries_exact_brings_them_back_too(cluster: ClusterUnderTest) -> None:
    file = deleted_and_needed_again(cluster, content_of(12))
    Content.objects.update(health_epoch=-1)
    cluster.result_of(Job.request(Job.Kind.REFRESH_HEALTH, "all"))
    file.content.refresh_from_db()
    assert (file.content.retrievable, file.content.min_replication) == (True, 3)
    assert cluster.false_negatives() == []


def test_repairing_all_brings_them_back_too(cluster: ClusterUnderTest) -> None:
    file = deleted_and_needed_again(cluster, content_of(12))
    assert cluster.result_of(repair.request_all())["lost"] == 0
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash, _ in file.content.manifest())


def test_a_verify_that_finds_a_chunk_nowhere_has_the_trash_looked_into(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(2))
    chunk_hash = file.content.manifest()[0][0]
    throw_away(cluster, chunk_hash)
    assert verify.verify(Holding.of_file(file)).missing == [chunk_hash]
    cluster.maintain()
    assert len(cluster.holders(chunk_hash)) == 3
    file.content.refresh_from_db()
    assert file.content.retrievable


def test_a_download_out_of_the_trash_has_the_copies_brought_back(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    file = cluster.upload(data)
    chunk_hash = file.content.manifest()[0][0]
    throw_away(cluster, chunk_hash)
    assert cluster.download(file) == data
    cluster.maintain()
    assert len(cluster.holders(chunk_hash)) == 3


def test_what_has_no_copy_in_the_trash_either_is_lost_and_nobody_goes_round_in_circles(
    cluster: ClusterUnderTest, capfd: pytest.CaptureFixture[str]
) -> None:
    file = cluster.upload(content_of(30))
    for chunk_hash, _ in file.content.manifest():
        for node_id in cluster.holders(chunk_hash):
            cluster.replica_path(node_id, chunk_hash).unlink()
    verify.verify(Holding.of_file(file))
    cluster.maintain()
    assert not Job.objects.open().exists()
    sweep.sweep()
    assert not Job.objects.open().exists()
    assert cluster.result_of(audit.request("node_000"))["lost"] == 30
    assert events(capfd, "chunks.lost")
    cluster.maintain()
    assert not Job.objects.open().exists()


def test_as_many_copies_come_back_as_are_short(cluster: ClusterUnderTest) -> None:
    chunk_hash = cluster.upload(content_of(1), factor=4).content.manifest()[0][0]
    File.objects.update(replication_factor=3)
    throw_away(cluster, chunk_hash, copies=3)
    assert bring_back(Topology.load(), [chunk_hash]) == {chunk_hash}
    assert len(cluster.holders(chunk_hash)) == 3
    assert bring_back(Topology.load(), [chunk_hash]) == set(), "it is not short any more"


def test_what_nothing_refers_to_stays_in_the_trash(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(1))
    chunk_hash = file.content.manifest()[0][0]
    throw_away(cluster, chunk_hash)
    catalogue.delete(file)
    assert bring_back(Topology.load(), [chunk_hash, "0" * 64]) == set()
    assert cluster.holders(chunk_hash) == []


def test_bytes_that_rotted_in_the_trash_stay_there(cluster: ClusterUnderTest) -> None:
    chunk_hash, size = cluster.upload(content_of(1)).content.manifest()[0]
    throw_away(cluster, chunk_hash)
    rotten, *others = sorted(cluster.configuration.nodes_dir.glob("*/trash/*"))
    rotten.write_bytes(b"\0" * size)
    assert bring_back(Topology.load(), [chunk_hash]) == {chunk_hash}
    assert rotten.exists()
    assert not any(other.exists() for other in others)
    assert len(cluster.holders(chunk_hash)) == 2


def test_a_purge_and_a_restoration_of_the_same_entries_lose_nothing(cluster: ClusterUnderTest) -> None:
    """RACES 10: the purge and the restoration decide by the same rule, so either may come first."""
    for first in ("purge", "restore"):
        file = cluster.upload(content_of(1, first))
        chunk_hash = file.content.manifest()[0][0]
        throw_away(cluster, chunk_hash)
        seen = Topology.load()
        if first == "restore":
            bring_back(seen, [chunk_hash])
        for member in seen.members:
            purge_trash(member, older_than=-60, most=100)
        bring_back(seen, [chunk_hash])
        assert len(cluster.holders(chunk_hash)) == 3
    assert cluster.false_negatives() == []


def test_a_copy_that_moved_to_a_node_added_during_a_pass_does_not_come_back(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk_hash = cluster.upload(content_of(1)).content.manifest()[0][0]
    giver = cluster.holders(chunk_hash)[0]

    def add_node_and_move(phase: str) -> None:
        if phase == "reclaim.purge":
            node_id = provision.add().node_id
            seen = Topology.load()
            data = cluster.replica_path(giver, chunk_hash).read_bytes()
            seen.member(node_id).lane.volume.write({chunk_hash: data})
            assert remove_replicas(seen, {chunk_hash: [seen.member(giver)]})

    monkeypatch.setattr(phases, "enter", add_node_and_move)
    assert reclaim.reclaim(0).purged == 1
    assert giver not in cluster.holders(chunk_hash)
    assert len(cluster.holders(chunk_hash)) == 3
