from __future__ import annotations

import dataclasses

from storage.cluster.topology import Member, Topology
from storage.replicas import moving
from storage.tracking import routing
from tests.support.paper import PaperCluster, member

HASHES = [f"{i:02x}" * 32 for i in range(64)]


def nodes(count: int, **changes: object) -> Topology:
    topology = PaperCluster(member(i) for i in range(count)).topology
    members = tuple(dataclasses.replace(each, **changes) for each in topology.members)  # type: ignore[arg-type]
    return dataclasses.replace(topology, members=members)


def test_the_plan_adds_where_placement_wants_copies_most_and_trims_where_it_wants_them_least() -> None:
    topology = nodes(5)
    for chunk_hash, order in zip(HASHES, routing.preferences(topology, HASHES), strict=True):
        held = [order[2], order[0], order[4], order[3]]
        (move,) = moving.plan(topology, {chunk_hash: held}, {chunk_hash: 2})
        assert (move.add, move.drop) == ([], [order[4], order[3]])
        (move,) = moving.plan(topology, {chunk_hash: [order[3]]}, {chunk_hash: 3})
        assert (move.add, move.drop) == ([order[0], order[1], order[2], order[4]], [])
        assert moving.plan(topology, {chunk_hash: [order[3], order[4]]}, {chunk_hash: 2}) == [], "they are enough"


def test_the_load_of_the_nodes_decides_nothing() -> None:
    even, uneven = nodes(5), nodes(5)
    uneven = dataclasses.replace(
        uneven, members=tuple(dataclasses.replace(m, stored_bytes=i * 10**9) for i, m in enumerate(uneven.members))
    )

    def added(topology: Topology) -> list[list[str]]:
        plan = moving.plan(topology, {h: [] for h in HASHES}, dict.fromkeys(HASHES, 3))
        return [[member.node_id for member in move.add] for move in plan]

    assert added(even) == added(uneven)


def test_copies_leave_a_draining_node_and_never_go_there() -> None:
    topology = nodes(4)
    draining = dataclasses.replace(topology.members[0], state="draining")
    topology = dataclasses.replace(topology, members=(draining, *topology.members[1:]))
    for move in moving.plan(topology, {h: [draining] for h in HASHES}, dict.fromkeys(HASHES, 2)):
        assert move.drop == [draining]
        assert draining not in move.add


def test_what_stays_of_too_many_copies_is_in_distinct_zones() -> None:
    topology = nodes(6)
    members = tuple(dataclasses.replace(m, zone="ab"[i % 2]) for i, m in enumerate(topology.members))
    topology = dataclasses.replace(topology, members=members)
    for held in ([members[0], members[2], members[1]], [members[1], members[3], members[5], members[4]]):
        for move in moving.plan(topology, dict.fromkeys(HASHES, held), dict.fromkeys(HASHES, 2)):
            stay: list[Member] = [each for each in held if each not in move.drop]
            assert {each.zone for each in stay} == {"a", "b"}
            assert len(stay) == 2


def test_the_order_names_full_nodes_only_for_what_they_have() -> None:
    topology = nodes(4)
    full = dataclasses.replace(topology.members[1], weight=0.0)
    topology = dataclasses.replace(topology, members=(topology.members[0], full, *topology.members[2:]))
    holders = {h: [full] if i % 2 else [] for i, h in enumerate(HASHES)}
    ordered = dict(moving.orders(topology, holders))
    assert set(ordered) == set(HASHES)
    for chunk_hash, order in ordered.items():
        assert (full in order) == bool(holders[chunk_hash])
        assert len(order) == 3 + bool(holders[chunk_hash])
