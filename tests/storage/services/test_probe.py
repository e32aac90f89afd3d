from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from storage.models import Cluster, Content, Holding, Job, Node
from storage.services import health, probe, verify
from storage.volumes import FilesystemVolume, Space
from tests.support.cluster import ClusterUnderTest, content_of


def test_a_node_that_goes_away_is_noticed_and_noticed_again_when_it_is_back(cluster: ClusterUnderTest) -> None:
    epoch = Cluster.load().topology_epoch
    cluster.take_offline("node_002")
    assert Node.objects.get(node_id="node_002").condition == "offline"
    assert Cluster.load().topology_epoch == epoch + 1
    assert health.examine().nodes == 4
    cluster.bring_back("node_002")
    assert Node.objects.get(node_id="node_002").condition == "active"
    assert Cluster.load().topology_epoch == epoch + 2


def test_an_empty_folder_in_the_place_of_a_node_is_an_offline_node(cluster: ClusterUnderTest) -> None:
    folder = cluster.folder("node_003")
    folder.rename(folder.with_suffix(".away"))
    folder.mkdir()
    probe.probe()
    assert Node.objects.get(node_id="node_003").condition == "offline"
    assert list(folder.iterdir()) == []


def conditions() -> list[str]:
    return [node.condition for node in Node.objects.all()]


def test_a_node_without_inodes_is_full(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(FilesystemVolume, "space", lambda self: Space("disk", 1 << 40, 1 << 40, free_files=10))
        probe.probe()
        assert conditions() == ["full"] * 5
    probe.probe()
    assert conditions() == ["active"] * 5


def test_a_node_whose_spare_was_used_up_gets_it_back_when_it_is_no_longer_full(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare = cluster.folder("node_001") / "spare"
    spare.unlink()
    with monkeypatch.context() as full:
        full.setattr(FilesystemVolume, "space", lambda self: Space("disk", 1000, 1 << 40))
        probe.probe()
        assert not spare.exists(), "the last bytes are not the spare's"
    probe.probe()
    assert spare.exists()


def test_a_process_without_descriptors_does_not_say_that_nodes_are_away(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file, volumes = os.open, str(cluster.configuration.nodes_dir)

    def lacking(path: str | Path, flags: int, *rest: int, **names: int) -> int:
        if str(path).startswith(volumes):
            raise OSError(errno.EMFILE, "too many open files")
        return open_file(path, flags, *rest, **names)

    cluster.take_offline("node_004")
    monkeypatch.setattr(os, "open", lacking)
    probe.probe()
    assert conditions() == ["active"] * 4 + ["offline"]


def test_health_says_which_part_is_missing(cluster: ClusterUnderTest) -> None:
    assert health.examine().failing == {}
    for node_id in ("node_000", "node_001", "node_002", "node_003"):
        cluster.take_offline(node_id)
    assert set(health.examine().failing) == {"nodes"}


def test_summaries_become_exact_again_after_a_node_has_gone(cluster: ClusterUnderTest) -> None:
    """RACES 19: after a change of the topology epoch, one job makes the summaries exact again."""
    file = cluster.upload(content_of(4))
    gone = cluster.holders(file.content.manifest()[0][0])
    for node_id in gone:
        cluster.take_offline(node_id)
    content = Content.objects.get()
    assert content.health_epoch < Cluster.load().topology_epoch, "an estimate by now"
    job = Job.objects.filter(kind=Job.Kind.REFRESH_HEALTH, state=Job.State.QUEUED).get()
    assert Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0) == [job]
    job.refresh_from_db()
    assert verify.refresh_health(job) == 1
    content.refresh_from_db()
    assert (content.retrievable, content.min_replication) == (False, 0)
    assert content.health_epoch == Cluster.load().topology_epoch


def test_an_older_summary_never_replaces_a_newer_one(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(1))
    health = verify.verify(Holding.of_file(file)).health
    Cluster.bump_topology()
    newer = verify.verify(Holding.of_file(file)).health
    file.content.record_health(health)
    file.content.refresh_from_db()
    assert file.content.health_epoch == newer.epoch


def test_verify_finds_what_is_missing_and_deep_what_is_corrupt(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(2))
    (first, size), (second, _) = file.content.manifest()
    for node_id in cluster.holders(first):
        cluster.replica_path(node_id, first).unlink()
    one = cluster.replica_path(cluster.holders(second)[0], second)
    one.write_bytes(b"\0" * one.stat().st_size)
    report = verify.verify(Holding.of_file(file))
    assert report.missing == [first]
    assert not report.health.retrievable
    assert [len(chunk.nodes) for chunk in report.chunks] == [0, 3]
    assert [len(chunk.nodes) for chunk in verify.verify(Holding.of_file(file), deep=True).chunks] == [0, 2]
    assert Job.objects.filter(kind=Job.Kind.REPAIR, subject=second).exists()
    assert size == 4096
