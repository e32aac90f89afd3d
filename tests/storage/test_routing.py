from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from storage import routing
from storage.topology import Topology
from tests.cluster import ClusterUnderTest, content_of


def test_nodes_that_hold_a_chunk_are_asked_first(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(50))
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    located = routing.locate(Topology.load(), hashes)
    hits = sum(
        {member.node_id for member in order[:3]} == set(cluster.holders(chunk_hash))
        for chunk_hash, order in zip(hashes, located, strict=True)
    )
    assert hits >= 45, "a collision of registers may add a wrong guess"
    assert all(len(order) == 5 for order in located), "a zero register only orders"


def test_an_offline_node_is_asked_last(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(5))
    cluster.take_offline("node_001")
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    assert {order[-1].node_id for order in routing.locate(Topology.load(), hashes)} == {"node_001"}


def test_without_redis_the_placement_orders(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    file = cluster.upload(content_of(20))

    def away(*_: Any) -> Any:
        raise routing.StoreUnavailable("away")

    monkeypatch.setattr("sketches.store.SketchStore.snapshot", away)
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    for chunk_hash, order in zip(hashes, routing.locate(Topology.load(), hashes), strict=True):
        assert {member.node_id for member in order[:3]} == set(cluster.holders(chunk_hash))
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
    for chunk_hash, order in zip(hashes, routing.locate(fewer, hashes), strict=True):
        holders = set(cluster.holders(chunk_hash)) - {"node_000"}
        assert {member.node_id for member in order[: len(holders)]} == holders


def test_without_nodes_there_is_nowhere_to_look(cluster: ClusterUnderTest) -> None:
    topology = dataclasses.replace(Topology.load(), members=())
    assert routing.locate(topology, ["0" * 64]) == [[]]
