"""The effects of plans over the whole history of a cluster: where copies lie, and how many have moved."""

from __future__ import annotations

from math import comb, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.services import rebalance_all
from tests.support.paper import PaperCluster, member

ZONES = ["a", "b", "c", "d"]


def grown(capacities: list[float], zones: list[str], targets: dict[int, int]) -> tuple[PaperCluster, list[int]]:
    """Store chunks on five nodes, then add the other nodes one by one, with a rebalance after each.

    Returns the cluster, and the number of copies that each rebalance moved.
    """
    members = [member(i, capacity, zone) for i, (capacity, zone) in enumerate(zip(capacities, zones, strict=True))]
    cluster = PaperCluster(members[:5])
    for target, count in targets.items():
        cluster.upload(count, target)
    moved = []
    for new in members[5:]:
        before = {h: set(held) for h, held in cluster.holders.items()}
        cluster.members[new.node_id] = new
        moved.append(cluster.rebalance())
        arrived = {node_id for h, held in cluster.holders.items() for node_id in held - before[h]}
        assert arrived == {new.node_id} or any(zones), "only the new node gets copies: none moves that need not"
    return cluster, moved


@pytest.mark.parametrize(
    ("capacities", "zones", "targets"),
    [
        ([1.0] * 8, [""] * 8, {3: 5000}),
        ([1.0, 2.0, 4.0, 1.0, 2.0, 4.0, 1.0, 2.0], [""] * 8, {3: 5000}),
        ([1.0] * 8, [ZONES[i % 4] for i in range(8)], {3: 5000}),
        ([1.0] * 8, [""] * 8, {2: 2500, 3: 2500}),
    ],
    ids=["equal", "capacities", "zones", "factors"],
)
def test_a_cluster_that_grew_is_spread_as_if_it_had_always_had_its_nodes(
    capacities: list[float], zones: list[str], targets: dict[int, int]
) -> None:
    cluster, moved = grown(capacities, zones, targets)
    fresh = PaperCluster(cluster.members.values())
    for target, count in targets.items():
        fresh.upload(count, target)
    assert cluster.holders == fresh.holders
    assert all(len(held) == cluster.targets[h] for h, held in cluster.holders.items())
    assert cluster.rebalance() == 0, "a second run moves nothing"
    assert cluster.first_is_right() == 1.0
    assert cluster.largest_z() < 4
    if not any(zones) and targets == {3: 5000} and len(set(capacities)) == 1:
        assert sum(moved) == pytest.approx(15_000 * (1 / 6 + 1 / 7 + 1 / 8), rel=0.03)
        assert cluster.worst_set() < 2 * 5000 / comb(8, 3)


def test_copies_that_have_gathered_are_spread_again_although_shares_are_met() -> None:
    cluster, _ = grown([1.0] * 8, [""] * 8, {3: 2000})
    right = {h: set(held) for h, held in cluster.holders.items()}
    cluster.gather(newest=3)
    assert cluster.worst_set() >= 500
    assert cluster.largest_z() > 10
    misplaced = sum(len(held - right[h]) for h, held in cluster.holders.items())
    assert cluster.rebalance() == misplaced, "the fewest that can be"
    assert cluster.holders == right
    assert cluster.largest_z() < 4


def test_a_full_node_keeps_what_it_has_and_the_next_takes_what_it_lacks() -> None:
    cluster = PaperCluster(member(i) for i in range(5))
    cluster.upload(500)
    cluster.change("node_001", weight=0.0)
    assert cluster.rebalance() == 0
    kept = {h for h, held in cluster.holders.items() if "node_001" in held}
    cluster.upload(500)
    assert {h for h, held in cluster.holders.items() if "node_001" in held} == kept
    assert cluster.rebalance() == 0, "uploads passed over the full node in the same way"
    cluster.change("node_001", weight=1.0)
    assert cluster.rebalance() == pytest.approx(300, abs=60)
    assert cluster.rebalance() == 0


def test_a_copy_whose_place_is_full_stays_in_its_own_zone() -> None:
    cluster = PaperCluster(member(i, zone=ZONES[i % 3]) for i in range(6))
    cluster.upload(300)
    cluster.change("node_000", weight=0.0)
    cluster.rebalance()
    zones = {node_id: each.zone for node_id, each in cluster.members.items()}
    assert all(len({zones[node_id] for node_id in held}) == 3 for held in cluster.holders.values())


STEPS = st.lists(st.sampled_from(["add", "drain", "rebalance", "fail", "return", "upload", "lose"]), max_size=10)
MOST_NODES = 9


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(4, 6), st.integers(0, 100))
def test_no_history_gathers_more_than_twice_the_expected_chunks_on_any_set_of_nodes(
    steps: list[str], nodes: int, which: int
) -> None:
    cluster = PaperCluster(member(i) for i in range(nodes))
    cluster.upload(500)
    cluster.upload(200, target=2)
    added, owing = nodes, False
    for step in steps:
        active = cluster.counting()
        away = [node_id for node_id, each in cluster.members.items() if not each.online]
        one = active[which % len(active)]
        match step:
            case "add" if len(cluster.members) < MOST_NODES:
                cluster.members[f"node_{added:03d}"] = member(added)
                added += 1
                cluster.rebalance()  # The service ``provision`` also queues a rebalance when it adds a node.
                owing = bool(away)
            case "drain" if len(active) > 4:
                cluster.drain(one)
            case "rebalance":
                cluster.rebalance()
                owing = bool(away)
            case "fail" if len(active) > 4:
                cluster.change(one, online=False)
                cluster.repair()
            case "return" if away:
                cluster.change(away[0], online=True)
                cluster.repair()
            case "lose" if away:
                del cluster.members[away[0]]
                for held in cluster.holders.values():
                    held.discard(away[0])
            case "upload":
                # Copies stored while a node is away lie on the other nodes, until a rebalance after its return.
                owing = owing or bool(away)
                cluster.upload(100)
        if not owing:
            require_spread(cluster)


def require_spread(cluster: PaperCluster) -> None:
    for target in (2, 3):
        chunks = sum(wanted == target for wanted in cluster.targets.values())
        expected = chunks / comb(len(cluster.counting()), target)
        assert cluster.worst_set(target) <= 2 * expected + 5 * sqrt(expected)


def test_a_chunk_below_its_target_is_left_to_repair() -> None:
    cluster = PaperCluster(member(i) for i in range(5))
    cluster.upload(50)
    for held in cluster.holders.values():
        held.pop()
    assert rebalance_all.moves(cluster.topology, cluster.entries()) == []
