from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import Any

import pytest
from django.db import DatabaseError
from hypothesis import given
from hypothesis import strategies as st

from storage.cluster import topology
from storage.cluster.topology import Topology
from storage.models import File, Job
from storage.replicas import reporting
from storage.replicas.reporting import (
    FORGET_CHUNK,
    NODE_MISSES,
    NODE_PAUSE,
    NODE_SPAN,
    REPORTS_PER_SECOND,
    Lately,
    Misses,
    Worth,
)
from storage.services import catalogue, probe, rebalance_all, reclaim
from storage.services.provision import provision
from tests.support.cluster import ClusterUnderTest, content_of


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def misses(monkeypatch: pytest.MonkeyPatch) -> Misses:
    """An empty record of misses, as in a process that has reported nothing yet."""
    fresh = Misses()
    monkeypatch.setattr(reporting, "_misses", fresh)
    return fresh


def open_jobs(kind: str) -> set[str | None]:
    return set(Job.objects.open().filter(kind=kind).values_list("subject", flat=True))


# -- misses that are reported --------------------------------------------------


def test_a_chunk_is_reported_once_and_again_after_some_minutes() -> None:
    time = Time()
    misses = Misses(time)
    assert misses.weigh("a", "node") is Worth.LOOK_FOR_CHUNK
    assert misses.weigh("a", "node") is Worth.NOTHING
    assert misses.weigh("a", "another node") is Worth.NOTHING, "whoever looks for the chunk asks every node"
    time.now += FORGET_CHUNK
    assert misses.weigh("a", "node") is Worth.LOOK_FOR_CHUNK


def test_one_chunk_that_is_missed_again_and_again_condemns_no_node() -> None:
    time = Time()
    misses = Misses(time)
    for _ in range(100):
        assert misses.weigh("a", "node") is not Worth.LIST_NODE
        time.now += NODE_SPAN / 30


def test_a_node_that_lacks_many_chunks_is_listed_once_and_then_left_alone() -> None:
    time = Time()
    misses = Misses(time)
    worth = [misses.weigh(f"{i}", "node") for i in range(1000)]
    assert Counter(worth)[Worth.LIST_NODE] == 1
    assert worth.index(Worth.LIST_NODE) == NODE_MISSES - 1
    assert set(worth[NODE_MISSES:]) == {Worth.NOTHING}
    time.now += 2.0
    assert misses.weigh("x", "another node") is Worth.LOOK_FOR_CHUNK
    time.now += NODE_PAUSE
    assert misses.weigh("y", "node") is Worth.LOOK_FOR_CHUNK


def test_misses_that_come_slowly_are_reported_one_by_one() -> None:
    time = Time()
    misses = Misses(time)
    for i in range(100):
        assert misses.weigh(f"{i}", "node") is Worth.LOOK_FOR_CHUNK
        time.now += 1.1 * NODE_SPAN / NODE_MISSES


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3), st.floats(0, 2)), max_size=300))
def test_no_sequence_of_misses_makes_a_storm(seen: list[tuple[int, int, float]]) -> None:
    time = Time()
    misses = Misses(time)
    reports: list[tuple[float, Worth]] = []
    for chunk, node, pause in seen:
        time.now += pause
        worth = misses.weigh(f"chunk {chunk}", f"node {node}")
        if worth is not Worth.NOTHING:
            reports.append((time.now, worth))
    looks = [at for at, worth in reports if worth is Worth.LOOK_FOR_CHUNK]
    for first, last in zip(looks, looks[REPORTS_PER_SECOND:], strict=False):
        assert last - first >= 1.0
    listings = [at for at, worth in reports if worth is Worth.LIST_NODE]
    assert len(listings) <= 4 * (1 + (time.now - 1000) // NODE_PAUSE)


def test_what_is_remembered_is_bounded() -> None:
    lately = Lately(seconds=60.0, most=10)
    for i in range(1000):
        lately.add(i, float(i))
    assert [i for i in range(1000) if lately.has(i, 999.0)] == list(range(990, 1000))


# -- effects of a report -------------------------------------------------------


def test_a_reader_that_misses_a_copy_has_it_made_again(cluster: ClusterUnderTest) -> None:
    data = content_of(4)
    file = cluster.upload(data)
    missed = None
    for (chunk_hash, _), place in itertools.product(file.content.manifest(), range(3)):
        # A reader misses only the copy that it asks for first. Placement decides which copy the reader asks for first,
        # so the test removes one copy after another until the reader misses one.
        path = cluster.replica_path(cluster.holders(chunk_hash)[place], chunk_hash)
        copy = path.read_bytes()
        path.unlink()
        assert cluster.download(file) == data
        if open_jobs(Job.Kind.REPAIR):
            missed = chunk_hash
            break
        path.write_bytes(copy)
    assert open_jobs(Job.Kind.REPAIR) == {missed}
    cluster.maintain()
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash, _ in file.content.manifest())
    assert cluster.false_negatives() == []


def test_readers_of_a_healthy_cluster_report_nothing(cluster: ClusterUnderTest) -> None:
    files = [cluster.upload(content_of(20, str(factor)), factor=factor) for factor in (1, 2, 3, 5)]
    for file in files:
        cluster.download(file)
    assert not Job.objects.open().exists()


def test_a_node_that_lost_much_is_listed_instead_of_its_chunks_one_by_one(cluster: ClusterUnderTest) -> None:
    data = content_of(300)
    file = cluster.upload(data)
    for path in cluster.folder("node_002").glob("chunks/*/*"):
        path.unlink()
    assert cluster.download(file) == data
    assert open_jobs(Job.Kind.RECONCILE) == {"node_002"}
    assert len(open_jobs(Job.Kind.REPAIR)) < NODE_MISSES
    cluster.maintain()
    file.content.refresh_from_db()
    assert file.content.min_replication == 2, "the listing has found what is short"


def test_a_report_of_a_chunk_that_is_nowhere_short_changes_nothing(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(2))
    chunk_hash = file.content.manifest()[0][0]
    reporting._look_for(chunk_hash, "node_000")
    assert [job.kind for job in cluster.maintain()] == [Job.Kind.REPAIR]
    assert not Job.objects.open().exists()
    assert len(cluster.holders(chunk_hash)) == 3


def test_a_miss_that_the_sketch_no_longer_vouches_for_is_not_reported(cluster: ClusterUnderTest) -> None:
    """A reader may have used sketches that were up to a second old."""
    chunk_hash = cluster.upload(content_of(1)).content.manifest()[0][0]
    seen = Topology.load()
    for member in seen.members:
        if member.node_id not in cluster.holders(chunk_hash):
            reporting.report_miss(seen, chunk_hash, member, 3)
    assert not Job.objects.open().exists()
    reporting.report_miss(seen, chunk_hash, seen.member(cluster.holders(chunk_hash)[0]), 3)
    assert open_jobs(Job.Kind.REPAIR) == {chunk_hash}


def test_a_report_without_a_database_breaks_no_read(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content_of(1)
    file = cluster.upload(data)
    for node_id in cluster.holders(file.content.manifest()[0][0]):
        member = next(m for m in cluster.members() if m.node_id == node_id)
        member.lane.volume.trash(file.content.manifest()[0][0], f"{0:012x}token")

    def away(*_: object) -> Job:
        raise DatabaseError("away")

    monkeypatch.setattr(Job, "request", away)
    assert cluster.download(file) == data


def test_healthy_churn_raises_no_alarm(
    cluster: ClusterUnderTest, settings: Any, misses: Misses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test has nearly full sketches, files with several factors, deletions, new nodes and a rebalance."""
    weighed: list[tuple[str, str]] = []

    def weigh(chunk_hash: str, node_id: str) -> Worth:
        weighed.append((chunk_hash, node_id))
        return Worth.NOTHING

    monkeypatch.setattr(misses, "weigh", weigh)

    def resize(**sizes: int) -> None:
        settings.OCC = dataclasses.replace(settings.OCC, **sizes)
        provision(settings.OCC)
        topology.forget()
        probe.probe()
        cluster.maintain()

    def read_all() -> None:
        for file in File.objects.select_related("content"):
            cluster.download(file)

    resize(n_prime=300)
    files = [cluster.upload(content_of(20, f"{factor} {i}"), factor=factor) for i in range(2) for factor in (1, 2, 3)]
    read_all()
    resize(num_nodes=8)
    read_all()
    catalogue.delete(files.pop())
    reclaim.reclaim(0)
    read_all()
    cluster.upload(content_of(40, "later"))
    rebalance_all.request()
    cluster.maintain()
    read_all()
    assert weighed == []
