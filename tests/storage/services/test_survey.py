"""The periodic survey of the sketches stores its result, and lets the sketches grow before they fill up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
import redis

from storage.cluster import topology
from storage.cluster.topology import Member, Topology
from storage.models import Chunk, Cluster, LastSurvey, Node
from storage.replicas.finding import ask
from storage.replicas.removing import remove_replicas
from storage.services import catalogue, health, probe, rebalance_all, reclaim, statistics, survey
from storage.tracking import counting, surveying
from storage.tracking.surveying import Survey, surveys
from storage.tracking.surveying.targets import leaving, targets
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of


def shrink(cluster: ClusterUnderTest, n_prime: int) -> None:
    """Give the sketches ``n_prime`` registers, few enough for a test to fill."""
    Cluster.objects.update(base_n_prime=n_prime, n_prime=n_prime)
    probe.probe()
    cluster.maintain()


def test_sketches_grow_when_they_have_a_chunk_for_every_four_registers(cluster: ClusterUnderTest) -> None:
    shrink(cluster, 256)
    cluster.upload(content_of(40))
    survey.survey()
    assert Cluster.load().n_prime == 256
    file = cluster.upload(content_of(400, "more"))
    survey.survey()
    grown = Cluster.load().n_prime
    assert grown in (1024, 2048)
    probe.probe()
    cluster.maintain()
    found = surveying.survey(Topology.load())
    assert found is not None
    assert (found.n_prime, found.trusted) == (grown, True)
    assert found.load <= 0.5
    assert cluster.false_negatives() == []
    assert cluster.download(file) == content_of(400, "more")
    survey.survey()
    survey.survey()
    assert Cluster.load().n_prime <= 2048, "growth settles"


def test_a_survey_survives_being_kept(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveys, "LARGE", 0)
    cluster.upload(content_of(30))
    survey.survey()
    taken = surveying.survey(Topology.load())
    assert taken is not None
    assert Survey.from_json(LastSurvey.objects.get().document) == taken


def test_without_redis_a_survey_waits(cluster: ClusterUnderTest, redis_client: redis.Redis) -> None:
    redis_client.flushall()
    survey.survey()
    assert not LastSurvey.objects.exists()


def test_saturated_sketches_answer_bounds_and_grow(cluster: ClusterUnderTest) -> None:
    shrink(cluster, 16)
    cluster.upload(content_of(300))
    found = surveying.survey(Topology.load())
    assert found is not None
    assert found.union.saturated
    assert found.union.upper_bound is None
    assert found.overlap is None
    survey.survey()
    assert Cluster.load().n_prime >= 64


def test_zones_are_part_of_what_is_expected(cluster: ClusterUnderTest) -> None:
    for node in Node.objects.all():
        Node.objects.filter(pk=node.pk).update(zone="a" if node.node_id < "node_003" else "b")
    topology.forget()
    cluster.upload(content_of(600), factor=2)
    found = surveying.survey(Topology.load())
    assert found is not None
    assert found.overlap is not None
    assert found.overlap.expected[0][1] < 1, "two replicas never share a zone"
    assert all(abs(z) < 4 for row in found.overlap.z for z in row)


def test_what_is_being_reclaimed_is_not_below_its_target(
    cluster: ClusterUnderTest, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Surveys are made while the copies of condemned chunks are removed one by one.

    The last survey reads the sketches before the rows of the last chunks are deleted, and reads the targets afterwards.
    """
    settings.OCC = replace(settings.OCC, reclaim_grace=0)
    cluster.upload(content_of(30))
    catalogue.delete(cluster.upload(content_of(20, "deleted"), factor=2))
    said = []

    def look(_: str) -> None:
        found = surveying.survey(Topology.load())
        assert found is not None
        said.append((found.below_target.estimate, found.below_target.lower_bound))

    def trash_one_by_one(topology: Topology, copies: Mapping[str, Sequence[Member]]) -> int:
        removed = 0
        for chunk_hash, members in copies.items():
            for member in members:
                removed += remove_replicas(topology, {chunk_hash: [member]})
                look("one copy has gone")
        return removed

    def targets_too_late() -> Any:
        monkeypatch.setattr(surveys, "targets", targets)
        reclaim.reclaim(0)
        return targets()

    monkeypatch.setattr(reclaim, "CHUNKS_PER_PASS", 10)
    monkeypatch.setattr(reclaim, "remove_replicas", trash_one_by_one)
    reclaim.reclaim(0)
    monkeypatch.setattr(reclaim, "remove_replicas", remove_replicas)
    monkeypatch.setattr(surveys, "targets", targets_too_late)
    look("all that were left have gone")
    assert (len(said), set(said)) == (10 * 2 + 1, {(0.0, 0.0)})
    assert Chunk.objects.count() == 30


def test_what_becomes_due_and_is_removed_during_a_survey_is_not_below_its_target(
    cluster: ClusterUnderTest, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OCC = replace(settings.OCC, reclaim_grace=2)
    cluster.upload(content_of(30))
    catalogue.delete(cluster.upload(content_of(20, "deleted"), factor=2))
    reclaim.reclaim(2)  # This pass condemns the chunks.
    condemned = Chunk.objects.exclude(condemned_at=None).values_list("hash", flat=True)
    assert len(condemned) == 20

    def leaving_too_early() -> int:
        found = leaving()
        holders = ask(Topology.load(), dict.fromkeys(condemned, CHUNK_SIZE)).holders
        remove_replicas(Topology.load(), {chunk_hash: found[:1] for chunk_hash, found in holders.items()})
        return found

    monkeypatch.setattr(surveys, "leaving", leaving_too_early)
    found = surveying.survey(Topology.load())
    assert found is not None
    assert (found.below_target.estimate, found.below_target.lower_bound) == (0.0, 0.0)


def gather(cluster: ClusterUnderTest) -> None:
    """Count chunks as if half of them had been moved to the same three nodes. All nodes stay about equally full."""
    nodes = [member.node_id for member in cluster.members()]
    placed: dict[str, list[str]] = {node_id: [] for node_id in nodes}
    for number in range(600):
        chunk_hash = sha256(f"gathered {number}".encode()).hexdigest()
        for node_id in nodes[:3] if number % 2 else (nodes[number % 3], *nodes[3:]):
            placed[node_id].append(chunk_hash)
    counting.count(Topology.load(), placed)


def test_copies_that_stay_gathered_for_an_hour_are_told_of(
    cluster: ClusterUnderTest, capfd: pytest.CaptureFixture[str]
) -> None:
    gather(cluster)
    survey.survey()
    since = Cluster.load().gathered_since
    assert since is not None
    assert "gathered" not in health.examine().degraded, "for less than an hour it is no trouble"
    Cluster.objects.update(gathered_since=since - timedelta(hours=2))
    for _ in range(2):
        survey.survey()
    assert "rebalance --dry-run" in health.examine().degraded["gathered"]
    told = [line for line in capfd.readouterr().err.splitlines() if '"copies.gathered"' in line]
    assert len(told) == 1
    assert '"nodes": ["node_000", "node_001", "node_002"]' in told[0]
    rebalance_all.request()
    survey.survey()
    assert Cluster.load().gathered_since is None, "a rebalance is about to mend it"
    assert "gathered" not in health.examine().degraded


def test_copies_that_placement_spread_are_no_finding(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(300))
    survey.survey()
    assert Cluster.load().gathered_since is None


def test_both_averages_are_of_the_nodes_that_are_online(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(60))
    cluster.take_offline("node_002")
    found = statistics.gather()
    assert found.survey is not None
    assert found.average_replication < 3
    assert found.average_replication == pytest.approx(found.survey.average_replication.estimate, abs=0.05)
