from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import redis

from storage.cluster.topology import Topology
from storage.models import Node
from storage.tracking import routing
from storage.tracking.store import StoreUnavailable
from tests.support.cluster import ClusterUnderTest, content_of


def test_nodes_that_hold_a_chunk_are_asked_first(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(50))
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    located = routing.locate(Topology.load(), hashes)
    hits = sum(
        {member.node_id for member in route.order[:3]} == set(cluster.holders(chunk_hash))
        for chunk_hash, route in zip(hashes, located, strict=True)
    )
    assert hits >= 45, "a collision of registers may add a wrong guess"
    assert all(len(route.order) == 5 for route in located), "a zero register only orders"


def test_an_offline_node_is_asked_last(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(5))
    cluster.take_offline("node_001")
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    assert {route.order[-1].node_id for route in routing.locate(Topology.load(), hashes)} == {"node_001"}


def test_without_redis_the_placement_orders(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    file = cluster.upload(content_of(20))

    def away(*_: Any) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr("sketches.store.SketchStore.snapshot", away)
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    for chunk_hash, route in zip(hashes, routing.locate(Topology.load(), hashes), strict=True):
        assert {member.node_id for member in route.order[:3]} == set(cluster.holders(chunk_hash))
    assert cluster.download(file) == content_of(20)


def test_sketches_too_large_to_be_fetched_each_second_order_the_same(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cluster.upload(content_of(30))
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    topology = Topology.load()
    whole = routing.locate(topology, hashes)
    monkeypatch.setattr(routing, "RECENT_BYTES", 0)
    monkeypatch.setattr("sketches.store.SketchStore.snapshot", None)
    assert routing.locate(topology, hashes) == whole


def test_readers_who_saw_the_same_nodes_at_other_times_go_by_one_look_at_the_sketches(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = [chunk_hash for chunk_hash, _ in cluster.upload(content_of(3)).content.manifest()]
    earlier, later = Topology.load(), Topology.load()
    located = routing.locate(earlier, hashes)
    monkeypatch.setattr("sketches.store.SketchStore.snapshot", None)
    assert routing.locate(later, hashes) == located


def test_a_look_at_the_sketches_of_other_nodes_is_not_gone_by(cluster: ClusterUnderTest) -> None:
    hashes = [chunk_hash for chunk_hash, _ in cluster.upload(content_of(50)).content.manifest()]
    topology = Topology.load()
    routing.locate(topology, hashes)
    fewer = dataclasses.replace(topology, members=topology.members[1:])
    for chunk_hash, route in zip(hashes, routing.locate(fewer, hashes), strict=True):
        holders = set(cluster.holders(chunk_hash)) - {"node_000"}
        assert {member.node_id for member in route.order[: len(holders)]} == holders


def test_without_nodes_there_is_nowhere_to_look(cluster: ClusterUnderTest) -> None:
    topology = dataclasses.replace(Topology.load(), members=())
    (route,) = routing.locate(topology, ["0" * 64])
    assert route.order == []


def test_a_trusted_sketch_is_certain_of_the_copies_that_it_counted(cluster: ClusterUnderTest) -> None:
    """The sketch is also certain of copies that have vanished, so a reader that does not find such a copy knows that
    the copy is missing.
    """
    hashes = [chunk_hash for chunk_hash, _ in cluster.upload(content_of(40)).content.manifest()]
    topology = Topology.load()
    certain = 0
    for chunk_hash, route in zip(hashes, routing.locate(topology, hashes), strict=True):
        expected = {member.node_id for member in topology.members if route.is_certain(member)}
        assert expected <= set(cluster.holders(chunk_hash))
        certain += len(expected)
    assert certain >= 100, "a collision of registers takes the certainty about a chunk"


def test_nothing_is_certain_without_trusted_sketches(
    cluster: ClusterUnderTest, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk_hash = cluster.upload(content_of(1)).content.manifest()[0][0]
    Node.distrust_sketches([member.node_id for member in cluster.members()])
    seen = Topology.load()
    for flushed in (False, True):
        if flushed:
            redis_client.flushall()
        monkeypatch.setattr(routing, "RECENT_BYTES", 0)
        (route,) = routing.locate(seen, [chunk_hash])
        assert not any(route.is_certain(member) for member in seen.members)


def test_registers_that_count_more_copies_than_the_chunk_has_make_nobody_certain(cluster: ClusterUnderTest) -> None:
    """After nodes were added, placement may prefer a node that lacks the chunk, where another chunk is counted in the
    same register.
    """
    members = Topology.load().members
    route = routing.Route(members, members, [True] * 5, [1, 1, 1, 1, 0], [0.99, 0.4, 0.4, 0.4, 0.0], target=3)
    assert not route.is_certain(members[0])
    assert route._replace(registers=[1, 0, 1, 1, 0]).is_certain(members[0])
    twice = route._replace(registers=[2, 1, 1, 1, 0])
    assert not twice.is_certain(members[0]), "both may be of other chunks"
    assert not route._replace(registers=[1, 0, 1, 1, 0], target=2).is_certain(members[0])
    half_blind = route._replace(registers=[1, 0, 1, 1, 0], trusted=[True, False, True, True, True])
    assert not half_blind.is_certain(members[0]), "the node that is not trusted may have one of the three"
