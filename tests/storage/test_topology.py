"""The nodes as workers and readers see them."""

from __future__ import annotations

import pytest

from storage.models import Cluster, Node
from storage.topology import Topology
from tests.cluster import ClusterUnderTest


def test_nodes_come_in_the_order_of_their_ids_with_the_cluster_as_it_is_now(cluster: ClusterUnderTest) -> None:
    Cluster.objects.update(topology_epoch=41)
    Node.objects.filter(node_id="node_003").update(weight=0.25, zone="cellar")
    seen = Topology.load()
    assert [member.node_id for member in seen.members] == [f"node_00{i}" for i in range(5)]
    assert (seen.members[3].weight, seen.members[3].zone) == (0.25, "cellar")
    assert seen.cluster.topology_epoch == 41
    names = [field.attname for field in Cluster._meta.concrete_fields]
    assert [getattr(seen.cluster, name) for name in names] == [getattr(Cluster.load(), name) for name in names]


def test_what_is_not_there_yet_or_no_longer_is_no_member(cluster: ClusterUnderTest) -> None:
    Node.objects.filter(node_id="node_001").update(state=Node.State.RETIRED)
    Node.objects.filter(node_id="node_002").update(state=Node.State.CREATING)
    Node.objects.filter(node_id="node_004").update(state=Node.State.DRAINING)
    assert [member.node_id for member in Topology.load().members] == ["node_000", "node_003", "node_004"]
    Node.objects.update(state=Node.State.RETIRED)
    assert Topology.load().members == ()


def test_before_anything_was_prepared_there_is_no_topology(db: None) -> None:
    with pytest.raises(Cluster.DoesNotExist):
        Topology.load()
