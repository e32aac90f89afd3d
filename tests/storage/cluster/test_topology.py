"""The nodes as workers and readers see them."""

from __future__ import annotations

import pytest

from storage.cluster import topology
from storage.cluster.topology import Member, Topology
from storage.exceptions import ForeignVolume, VolumeOffline
from storage.models import Cluster, Node
from storage.services import probe
from tests.support.cluster import ClusterUnderTest


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


def test_a_second_node_on_a_file_system_halves_what_each_is_taken_for(cluster: ClusterUnderTest) -> None:
    for node_id, name, size in [("node_000", "1", 400), ("node_001", "1", 400), ("node_002", "2", 800)]:
        Node.objects.filter(node_id=node_id).update(file_system=name, file_system_bytes=size)
    Node.objects.filter(node_id__in=["node_003", "node_004"]).update(file_system="", file_system_bytes=0)
    capacities = [member.candidate.weight for member in Topology.load().members]
    assert capacities == [200, 200, 800, 400, 400], "those not probed yet are taken for average ones"


def test_how_full_a_node_is_does_not_change_what_placement_wants(cluster: ClusterUnderTest) -> None:
    before = Topology.load().candidates
    Node.objects.filter(node_id="node_001").update(weight=0.0625)
    Node.objects.filter(node_id="node_002").update(weight=0.0)
    assert Topology.load().candidates == before
    size = Node.objects.get(node_id="node_003").file_system_bytes
    Node.record_file_systems({"node_003": (Node.objects.get(node_id="node_003").file_system, size + size // 200)})
    assert Topology.load().candidates == before, "a file system whose size floats makes nothing misplaced"
    Node.record_file_systems({"node_003": (Node.objects.get(node_id="node_003").file_system, size * 2)})
    assert Topology.load().candidates != before


def test_before_anything_was_prepared_there_is_no_topology(db: None) -> None:
    with pytest.raises(Cluster.DoesNotExist):
        Topology.load()


def opened_breaker(member: Member) -> None:
    """Open the breaker of a node as if several back-offs had passed, so that it stays open for half a minute."""
    for _ in range(5):
        member.lane.breaker.trip()
        member.lane.breaker._closed_again_at = 0.0
    member.lane.breaker.trip()
    assert member.lane.breaker.is_open


def test_a_node_that_has_come_back_is_asked_at_once_by_every_process(cluster: ClusterUnderTest) -> None:
    """Another process has seen the node return. This process reads in the node's row that the node is back."""
    member = cluster.members()[2]
    cluster.take_offline("node_002")
    opened_breaker(member)
    cluster.members()
    refuses = [member.lane.breaker.is_open]
    cluster.folder("node_002").with_suffix(".away").rename(cluster.folder("node_002"))
    probe._record_change({"node_002": True})
    topology.forget()
    Topology.recent()
    refuses.append(member.lane.breaker.is_open)
    assert member.lane.call(member.lane.volume.identity).same_volume(member.identity)
    opened_breaker(member)
    cluster.members()
    refuses.append(member.lane.breaker.is_open)
    assert refuses == [True, False, True], "while it is away; when it has come back; when that is known"


def test_the_breaker_of_the_process_that_probes_hides_no_node(cluster: ClusterUnderTest) -> None:
    cluster.take_offline("node_002")
    member = cluster.members()[2]
    opened_breaker(member)
    cluster.folder("node_002").with_suffix(".away").rename(cluster.folder("node_002"))
    probe.probe()
    assert Node.objects.get(node_id="node_002").condition == "active"
    assert member.lane.breaker.is_closed


def test_a_look_at_a_node_says_what_room_it_has_unless_another_volume_lies_there(cluster: ClusterUnderTest) -> None:
    first = cluster.members()[0]
    assert first.look().total == first.lane.volume.space().total
    away = cluster.folder("node_000").with_suffix(".away")
    cluster.folder("node_000").rename(away)
    with pytest.raises(VolumeOffline):
        first.look()
    cluster.folder("node_001").rename(cluster.folder("node_000"))
    with pytest.raises(ForeignVolume):
        first.look()
