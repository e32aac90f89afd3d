from __future__ import annotations

import dataclasses
import random

import pytest

from storage import phases
from storage.models import Job, Node
from storage.replicas.census import Entry
from storage.services import provision, rebalance_all
from storage.topology import Member, Topology
from tests.cluster import ClusterUnderTest, content_of


def placed(members: list[Member], sizes: list[int]) -> dict[str, Entry]:
    """Chunks on three of the members each, whichever they are."""
    chance = random.Random(1)
    return {f"{i:064x}": Entry(size, 3, chance.sample(members, 3)) for i, size in enumerate(sizes)}


def excess_of(members: list[Member], entries: dict[str, Entry]) -> dict[str, float]:
    held = {m.node_id: float(sum(e.size for e in entries.values() if m in e.holders)) for m in members}
    return {node_id: size - sum(held.values()) / len(held) for node_id, size in held.items()}


def test_a_plan_moves_no_more_bytes_than_are_above_the_shares(cluster: ClusterUnderTest) -> None:
    topology = Topology.load()
    members = list(topology.members)
    entries = placed(members[:4], [1000] * 400)  # the fifth node is new
    excess = excess_of(members, entries)
    above = sum(value for value in excess.values() if value > 0)
    moves = rebalance_all.plan(topology, entries, excess)
    assert sum(entries[move.chunk_hash].size for move in moves) <= above + 4 * 1000
    assert all(abs(value) <= 1000 for value in excess.values())
    for move in moves:
        (giver,), (taker,) = move.drop, move.add
        assert giver in entries[move.chunk_hash].holders
        assert taker.node_id == "node_004"


def test_a_move_gives_no_zone_a_second_copy(cluster: ClusterUnderTest) -> None:
    topology = Topology.load()
    zones = ["a", "b", "c", "c", "a"]
    members = tuple(dataclasses.replace(m, zone=zone) for m, zone in zip(topology.members, zones, strict=True))
    topology = dataclasses.replace(topology, members=members)
    entry = Entry(1000, 3, [members[0], members[1], members[2]])
    excess = {"node_000": 0.0, "node_001": 9000.0, "node_002": 0.0, "node_003": -5000.0, "node_004": -9000.0}
    assert rebalance_all.plan(topology, {"0" * 64: entry}, excess) == [], "b could only go to a or c, which have one"
    excess = {"node_000": 9000.0, "node_001": 0.0, "node_002": 0.0, "node_003": -9000.0, "node_004": -5000.0}
    (move,) = rebalance_all.plan(topology, {"0" * 64: entry}, excess)
    assert [member.node_id for member in move.add] == ["node_004"]


def test_a_move_that_was_interrupted_between_its_halves_is_ended(cluster: ClusterUnderTest) -> None:
    topology = Topology.load()
    entry = Entry(1000, 3, list(topology.members[:4]))
    excess = {member.node_id: 100.0 * i for i, member in enumerate(topology.members)}
    (move,) = rebalance_all.plan(topology, {"0" * 64: entry}, excess)
    assert (move.add, [member.node_id for member in move.drop]) == ([], ["node_003"])


def test_a_new_node_gets_its_share_and_no_chunk_falls_below_its_target(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content_of(120)
    file = cluster.upload(data)
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    node = provision.add()
    assert (node.node_id, node.state) == ("node_005", Node.State.ACTIVE)

    def look(phase: str) -> None:
        if phase == "rebalance_all.trim":
            assert all(len(cluster.holders(chunk_hash)) >= 3 for chunk_hash in hashes)

    monkeypatch.setattr(phases, "enter", look)
    job = Job.objects.get(kind=Job.Kind.REBALANCE_ALL)
    result = cluster.result_of(job)
    share = 360 * 4096 / 6
    assert result["bytes"] <= share + 4096 * 6
    assert abs(Node.objects.get(node_id="node_005").bytes - share) <= 3 * 4096
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash in hashes)
    assert cluster.download(file) == data
    assert cluster.false_negatives() == []
    assert cluster.result_of(rebalance_all.request()) == {"replicas": 0, "bytes": 0}, "a second run moves nothing"
