from __future__ import annotations

import pytest

from storage.exceptions import ClusterUnavailable, InvalidRequest
from storage.models import File, Holding, Node
from storage.services import rebalance
from tests.support.cluster import ClusterUnderTest, content_of


def test_a_raised_factor_adds_copies_on_distinct_nodes(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(6))
    rebalance.request(Holding.of_file(file), 5)
    cluster.maintain()
    assert all(len(cluster.holders(chunk_hash)) == 5 for chunk_hash, _ in file.content.manifest())
    file.content.refresh_from_db()
    assert file.content.min_replication == file.content.max_replication == 5
    assert cluster.false_negatives() == []


def test_a_lowered_factor_trims_and_a_second_run_changes_nothing(cluster: ClusterUnderTest) -> None:
    data = content_of(6)
    file = cluster.upload(data)
    rebalance.request(Holding.of_file(file), 1)
    first = cluster.maintain()[-1]
    assert first.result == {"added": 0, "removed": 12}
    assert all(len(cluster.holders(chunk_hash)) == 1 for chunk_hash, _ in file.content.manifest())
    rebalance.request(Holding.of_file(file), 1)
    assert cluster.maintain()[-1].result == {"added": 0, "removed": 0}
    assert cluster.download(file) == data
    assert cluster.false_negatives() == []


def test_a_chunk_shared_with_a_file_of_a_larger_factor_keeps_its_copies(cluster: ClusterUnderTest) -> None:
    shared = content_of(2)[:4096]
    file, other = cluster.upload(shared + b"a"), cluster.upload(shared + b"b")
    rebalance.request(Holding.of_file(file), 1)
    cluster.maintain()
    shared_hash = other.content.manifest()[0][0]
    assert len(cluster.holders(shared_hash)) == 3


def test_lost_copies_are_made_good(cluster: ClusterUnderTest) -> None:
    data = content_of(3)
    file = cluster.upload(data)
    for chunk_hash, _ in file.content.manifest():
        for node_id in cluster.holders(chunk_hash)[:2]:
            cluster.replica_path(node_id, chunk_hash).unlink()
    rebalance.request(Holding.of_file(file), None)
    assert cluster.maintain()[-1].result == {"added": 6, "removed": 0}
    assert cluster.download(file) == data


def test_a_draining_node_is_left_by_the_file(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(8))
    Node.objects.filter(node_id="node_001").update(state=Node.State.DRAINING)
    rebalance.request(Holding.of_file(file), None)
    cluster.maintain()
    for chunk_hash, _ in file.content.manifest():
        assert "node_001" not in cluster.holders(chunk_hash)
        assert len(cluster.holders(chunk_hash)) == 3


def test_a_factor_above_the_nodes_is_refused(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(1))
    with pytest.raises(InvalidRequest):
        rebalance.request(Holding.of_file(file), 6)
    cluster.take_offline("node_000")
    with pytest.raises(ClusterUnavailable):
        rebalance.request(Holding.of_file(file), 5)
    assert File.objects.get().replication_factor == 3
