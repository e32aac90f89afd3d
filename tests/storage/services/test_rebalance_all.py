from __future__ import annotations

import dataclasses
import random

import pytest
import redis

from storage import phases
from storage.cluster.topology import Member, Topology
from storage.exceptions import VolumeOffline
from storage.models import Job, Node
from storage.replicas import census
from storage.replicas.census import Entry
from storage.services import provision, rebalance_all
from storage.tracking import routing
from tests.support.cluster import ClusterUnderTest, content_of


def placed(topology: Topology, members: list[Member], count: int) -> dict[str, Entry]:
    """``count`` chunks, each with copies on three members that are drawn at random."""
    chance = random.Random(1)
    hashes = [f"{chance.randrange(1 << 256):064x}" for _ in range(count)]
    return {chunk_hash: Entry(1000, 3, chance.sample(members, 3)) for chunk_hash in hashes}


def spread_by_hand(cluster: ClusterUnderTest, holders: dict[str, list[str]]) -> None:
    """Put copies of each chunk on the nodes that ``holders`` names for it, and on no other node."""
    for chunk_hash, node_ids in holders.items():
        data = cluster.replica_path(cluster.holders(chunk_hash)[0], chunk_hash).read_bytes()
        for member in cluster.members():
            path = cluster.replica_path(member.node_id, chunk_hash)
            path.unlink(missing_ok=True)
            if member.node_id in node_ids:
                path.write_bytes(data)


def test_what_is_misplaced_moves_and_nothing_else(cluster: ClusterUnderTest) -> None:
    topology = Topology.load()
    entries = placed(topology, list(topology.members), 200)
    moves = {move.chunk_hash: move for move in rebalance_all.moves(topology, entries)}
    wanted = dict(zip(entries, routing.preferences(topology, list(entries)), strict=True))
    assert 0 < len(moves) < 200
    for chunk_hash, entry in entries.items():
        first = wanted[chunk_hash][:3]
        if chunk_hash not in moves:
            assert set(first) == set(entry.holders)
            continue
        move = moves[chunk_hash]
        assert move.target == 3 + len(move.add)
        assert {*entry.holders, *move.add} - {*move.drop} == set(first)
        assert len(move.add) == len(move.drop)


def test_a_move_gives_no_zone_a_second_copy(cluster: ClusterUnderTest) -> None:
    topology = Topology.load()
    zones = ["a", "b", "c", "c", "a"]
    members = tuple(dataclasses.replace(m, zone=zone) for m, zone in zip(topology.members, zones, strict=True))
    topology = dataclasses.replace(topology, members=members)
    entries = placed(topology, list(members), 100)
    moves = rebalance_all.moves(topology, entries)
    assert moves
    for move in moves:
        after = {*entries[move.chunk_hash].holders, *move.add} - {*move.drop}
        assert {member.zone for member in after} == {"a", "b", "c"}


def test_a_move_that_was_interrupted_between_its_halves_is_ended(cluster: ClusterUnderTest) -> None:
    topology = Topology.load()
    (order,) = routing.preferences(topology, ["0" * 64])
    (move,) = rebalance_all.moves(topology, {"0" * 64: Entry(1000, 3, [order[3], *order[:3]])})
    assert (move.add, move.drop) == ([], [order[3]])
    (move,) = rebalance_all.moves(topology, {"0" * 64: Entry(1000, 3, [order[4], order[3], *order[:2]])})
    assert (move.target, move.add, move.drop) == (5, [order[2]], [order[4], order[3]])


def test_a_new_node_gets_its_share_and_no_chunk_falls_below_its_target(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content_of(120)
    file = cluster.upload(data)
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    before = {chunk_hash: set(cluster.holders(chunk_hash)) for chunk_hash in hashes}
    node = provision.add()
    assert (node.node_id, node.state) == ("node_005", Node.State.ACTIVE)

    def look(phase: str) -> None:
        if phase == "rebalance_all.trim":
            assert all(len(cluster.holders(chunk_hash)) >= 3 for chunk_hash in hashes)

    monkeypatch.setattr(phases, "enter", look)
    job = Job.objects.get(kind=Job.Kind.REBALANCE_ALL)
    result = cluster.result_of(job)
    arrived = [set(cluster.holders(chunk_hash)) - before[chunk_hash] for chunk_hash in hashes]
    assert result["replicas"] == sum(map(len, arrived))
    assert set().union(*arrived) == {"node_005"}, "nothing moves between the nodes that were there"
    assert 40 <= result["replicas"] <= 80, "a sixth of the copies, give or take five standard deviations"
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash in hashes)
    assert cluster.download(file) == data
    assert cluster.false_negatives() == []
    assert cluster.result_of(rebalance_all.request()) == {"replicas": 0, "bytes": 0}, "a second run moves nothing"


def test_copies_that_have_gathered_are_spread_as_an_upload_spreads_them(cluster: ClusterUnderTest) -> None:
    data = content_of(60)
    file = cluster.upload(data)
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    right = {chunk_hash: cluster.holders(chunk_hash) for chunk_hash in hashes}
    spread_by_hand(cluster, {chunk_hash: ["node_002", "node_003", "node_004"] for chunk_hash in hashes[:30]})
    misplaced = sum(len({*right[h]} - {"node_002", "node_003", "node_004"}) for h in hashes[:30])
    plan = rebalance_all.plan()
    assert (plan.copies, plan.misplaced, plan.surplus) == (180, misplaced, 0)
    assert plan.bytes == sum(load.bytes_in for load in plan.loads) == sum(load.bytes_out for load in plan.loads)
    assert {h: cluster.holders(h) for h in hashes[:30]} != {h: right[h] for h in hashes[:30]}, "a plan changes nothing"
    result = cluster.result_of(rebalance_all.request())
    assert result == {"replicas": misplaced, "bytes": plan.bytes}
    assert {chunk_hash: cluster.holders(chunk_hash) for chunk_hash in hashes} == right
    assert cluster.download(file) == data
    assert rebalance_all.plan().misplaced == 0


def test_ranges_that_were_through_before_a_node_came_are_looked_at_again(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cluster.upload(content_of(60))
    job = rebalance_all.request()
    take, added = census.take, list[Node]()

    def take_and_add(topology: Topology, prefix: str) -> census.Census:
        if prefix == "f" and not added:
            added.append(provision.add())
            # A second rebalance would move the copies that the first rebalance has missed, and so hide the fault.
            Job.objects.exclude(pk=job.pk).delete()
        return take(topology, prefix)

    monkeypatch.setattr(census, "take", take_and_add)
    assert cluster.result_of(job)["replicas"] > 10
    assert added
    assert rebalance_all.plan().misplaced == 0
    assert cluster.download(file) == content_of(60)


def test_a_node_that_cannot_be_listed_makes_a_rebalance_wait(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(3))
    rebalance_all.request()
    (job,) = Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)
    cluster.folder("node_001").rename(cluster.folder("node_001").with_suffix(".away"))
    with pytest.raises(VolumeOffline, match="node_001"):
        rebalance_all.rebalance_all(job)


def test_the_plan_says_by_how_much_the_largest_z_falls(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(200))
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    spread_by_hand(cluster, {chunk_hash: ["node_002", "node_003", "node_004"] for chunk_hash in hashes[:60]})
    for member in cluster.members():
        Job.request(Job.Kind.REBUILD_SKETCH, member.node_id)
    cluster.maintain()
    plan = rebalance_all.plan()
    assert plan.largest_z is not None
    assert plan.largest_z_planned is not None
    assert plan.largest_z > 4 > 3 > plan.largest_z_planned
    cluster.result_of(rebalance_all.request())
    after = rebalance_all.plan()
    assert after.largest_z == after.largest_z_planned == plan.largest_z_planned


def test_a_plan_without_sketches_still_says_what_moves(cluster: ClusterUnderTest, redis_client: redis.Redis) -> None:
    cluster.upload(content_of(5))
    redis_client.flushall()
    plan = rebalance_all.plan()
    assert (plan.copies, plan.misplaced, plan.largest_z) == (15, 0, None)
