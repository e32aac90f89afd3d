from __future__ import annotations

import dataclasses
from typing import Any

from storage.replicas import moving
from storage.topology import Member, Topology
from tests.cluster import ClusterUnderTest


def loaded(topology: Topology, **bytes_by_node: int) -> Topology:
    members = tuple(dataclasses.replace(m, stored_bytes=bytes_by_node.get(m.node_id, 0)) for m in topology.members)
    return dataclasses.replace(topology, members=members)


def test_the_plan_adds_to_the_least_loaded_and_trims_the_most_loaded(cluster: ClusterUnderTest) -> None:
    topology = loaded(Topology.load(), node_000=50, node_001=10, node_002=40, node_003=30, node_004=20)
    m: dict[str, Member] = {member.node_id: member for member in topology.members}
    holders: dict[str, Any] = {
        "short": [m["node_000"]],
        "surplus": [m["node_000"], m["node_001"], m["node_002"], m["node_003"]],
        "right": [m["node_000"], m["node_001"]],
    }
    moves = {move.chunk_hash: move for move in moving.plan(topology, holders, {"short": 2, "surplus": 2, "right": 2})}
    assert set(moves) == {"short", "surplus"}
    assert [member.node_id for member in moves["short"].add] == ["node_001", "node_004", "node_003", "node_002"]
    assert {member.node_id for member in moves["surplus"].drop} == {"node_000", "node_002"}
