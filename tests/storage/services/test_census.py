"""A census lists all nodes, reads no bytes, and tells which copies are on the disks."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import timedelta
from typing import Any

import pytest

from storage.cluster.topology import Topology
from storage.exceptions import TurnEnded
from storage.models import Chunk, Cluster, Content, Job, LastCensus, Node, Upload
from storage.models.clock import Clock
from storage.replicas import census
from storage.services import audit, catalogue, probe, reclaim, sweep
from storage.tracking import counting
from tests.support.cluster import ClusterUnderTest, content_of


def counted(cluster: ClusterUnderTest) -> LastCensus:
    """Take a census."""
    cluster.result_of(audit.request_census())
    found = LastCensus.load()
    assert found is not None
    return found


def test_it_says_what_is_on_the_disks(cluster: ClusterUnderTest) -> None:
    assert LastCensus.load() is None
    cluster.upload(content_of(20))
    nodes = Node.objects.all()
    found = counted(cluster)
    assert (found.chunks, found.copies, found.bytes) == (20, 60, sum(node.bytes for node in nodes))
    assert found.stored == {node.node_id: node.bytes for node in nodes}
    assert (found.short, found.lost, found.surplus, found.orphans, found.silent) == (0, 0, 0, 0, [])
    assert not Job.objects.open().exists(), "nothing is to be done"
    assert not Job.objects.filter(kind=Job.Kind.REBUILD_SKETCH).exists(), "and no sketch is rebuilt for it"


def test_no_copy_is_read(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.upload(content_of(5))
    for member in cluster.members():
        monkeypatch.setattr(member.lane.volume, "read", lambda *_, **__: pytest.fail("a copy was read"))
    assert counted(cluster).copies == 15


def test_what_vanished_on_any_node_is_found_and_made_again(cluster: ClusterUnderTest) -> None:
    chunks = [chunk_hash for chunk_hash, _ in cluster.upload(content_of(12)).content.manifest()]
    for chunk in chunks[:4]:
        cluster.replica_path(cluster.holders(chunk)[0], chunk).unlink()
    assert counted(cluster).short == 4
    sweep.sweep()
    cluster.maintain()
    assert [len(cluster.holders(chunk)) for chunk in chunks] == [3] * 12
    assert counted(cluster).short == 0


def test_strangers_surplus_and_leftovers_are_dealt_with_on_all_nodes(cluster: ClusterUnderTest) -> None:
    chunk = cluster.upload(content_of(1)).content.manifest()[0][0]
    holder = cluster.holders(chunk)[0]
    other = next(n.node_id for n in Node.objects.all() if n.node_id not in cluster.holders(chunk))
    cluster.replica_path(other, chunk).write_bytes(cluster.replica_path(holder, chunk).read_bytes())
    stranger = hashlib.sha256(b"nobody knows me").hexdigest()
    cluster.replica_path("node_002", stranger).write_bytes(b"nobody knows me")
    leftover = cluster.folder("node_003") / "chunks" / "ab" / ".tmp-0123"
    leftover.write_bytes(b"half a chunk")
    found = counted(cluster)
    assert (found.surplus, found.orphans) == (1, 1)
    assert len(cluster.holders(chunk)) == 3
    assert not leftover.exists()
    assert Chunk.objects.get(hash=stranger).condemned_at is not None
    reclaim.reclaim(0)
    assert cluster.holders(stranger) == []


def test_a_copy_of_another_size_is_judged(cluster: ClusterUnderTest) -> None:
    chunk = cluster.upload(content_of(2)).content.manifest()[0][0]
    holder = cluster.holders(chunk)[0]
    cluster.replica_path(holder, chunk).write_bytes(b"cut")
    assert counted(cluster).short == 1
    assert len(list((cluster.folder(holder) / "quarantine").iterdir())) == 1
    assert len(cluster.holders(chunk)) == 3


def test_what_an_upload_is_just_writing_is_neither_short_nor_lost(
    cluster: ClusterUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    """The chunks of the upload have rows and pins, but no copies yet."""
    cluster.upload(content_of(3))
    accepted = cluster.accept(content_of(4, "on its way"))
    hashes = [hashlib.sha256(f"{i}".encode()).hexdigest() for i in range(4)]
    Upload.objects.pin({(accepted.upload.pk, h): 3 for h in hashes}, dict.fromkeys(hashes, 4096))
    found = counted(cluster)
    assert (found.chunks, found.short, found.lost) == (3, 0, 0)


def test_a_chunk_without_a_copy_is_lost_when_all_nodes_answer(cluster: ClusterUnderTest) -> None:
    chunk = cluster.upload(content_of(2)).content.manifest()[0][0]
    for holder in cluster.holders(chunk):
        cluster.replica_path(holder, chunk).unlink()
    found = counted(cluster)
    assert (found.lost, found.chunks) == (1, 1)
    assert not Content.objects.get().retrievable


def test_a_node_that_is_away_is_left_out_and_named(cluster: ClusterUnderTest) -> None:
    chunk = cluster.upload(content_of(2)).content.manifest()[0][0]
    for holder in cluster.holders(chunk)[1:]:
        cluster.replica_path(holder, chunk).unlink()
    away = cluster.holders(chunk)[0]
    cluster.take_offline(away)
    found = counted(cluster)
    assert found.silent == [away]
    assert found.lost == 0, "it may have what is nowhere else"


def test_a_node_that_counts_another_number_gets_a_new_sketch(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(20))
    Node.objects.filter(node_id="node_001").update(chunks=1000)
    job = audit.request_census()
    assert cluster.result_of(job)["contradicted"] == ["node_001"]
    assert Job.objects.get(kind=Job.Kind.REBUILD_SKETCH).subject == "node_001"
    assert Node.objects.get(node_id="node_001").chunks < 20, "the rebuild has corrected it"


def test_a_sketch_that_denies_what_is_listed_is_rebuilt(cluster: ClusterUnderTest) -> None:
    chunk = cluster.upload(content_of(9)).content.manifest()[4][0]
    holder = cluster.holders(chunk)[0]
    seen = Topology.load()
    counting.uncount(seen, {holder: [chunk]}, counting.builds(seen, [holder]))
    assert cluster.result_of(audit.request_census())["denied"] == 1
    assert cluster.false_negatives() == []


def test_a_small_store_has_few_ranges(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.upload(content_of(3))
    topology = Topology.load()
    few, many = [f"{step:x}" for step in range(16)], [f"{step:02x}" for step in range(256)]
    assert census.prefixes(topology) == few
    assert census.prefixes(topology, 256) == many, "a job keeps the number that it has begun with"
    monkeypatch.setattr(census, "SMALL", -1)
    assert census.prefixes(topology) == many
    assert census.prefixes(topology, 16) == few


def test_copies_that_postgresql_does_not_know_make_a_store_large(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "SMALL", 1)
    member = cluster.members()[0]
    member.lane.call(member.lane.volume.write, {f"{number:064x}": b"x" for number in range(2)})
    assert not Chunk.objects.exists()
    assert len(census.prefixes(Topology.load())) == 256


@pytest.mark.parametrize("total", [16, 256])
def test_it_goes_on_where_its_turn_ended(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch, total: int
) -> None:
    monkeypatch.setattr(census, "SMALL", 256 if total == 16 else -1)
    cluster.upload(content_of(30))
    audit.request_census()
    (job,) = Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)
    taken: list[str] = []
    take = census.take

    def listed(topology: Topology, prefix: str) -> Any:
        taken.append(prefix)
        return take(topology, prefix)

    monkeypatch.setattr(census, "take", listed)
    monkeypatch.setattr(job, "make_way", lambda: pytest.fail() if len(taken) > 10 else _end_turn(taken))
    with pytest.raises(TurnEnded):
        audit.take_census(job)
    job.end_turn()
    monkeypatch.setattr(census, "SMALL", -1 if total == 16 else 256)  # The store grows, or shrinks, between the turns.
    cluster.maintain()
    assert taken == ["00", *(f"{step:0{1 if total == 16 else 2}x}" for step in range(total))], "no range twice"
    found = LastCensus.load()
    assert found is not None
    assert (found.chunks, found.copies) == (30, 90)
    assert not Job.objects.filter(kind=Job.Kind.REBUILD_SKETCH).exists()


def _end_turn(taken: list[str]) -> None:
    if len(taken) == 10:
        raise TurnEnded("others wait")


def censuses() -> int:
    return Job.objects.filter(kind=Job.Kind.CENSUS).count()


def test_all_nodes_are_listed_once_in_an_interval(cluster: ClusterUnderTest, settings: Any) -> None:
    probe.probe()
    assert censuses() == 0, "a new cluster has time"
    Cluster.objects.update(created_at=Clock() - timedelta(seconds=3700))
    Job.objects.create(kind=Job.Kind.AUDIT, subject="node_000", queue=Job.Queue.MAINTENANCE, state=Job.State.RUNNING)
    probe.probe()
    probe.probe()
    assert censuses() == 1, "an audit under way is no reason to wait"
    cluster.maintain()
    probe.probe()
    assert censuses() == 1
    Job.objects.filter(kind=Job.Kind.CENSUS).update(finished_at=Clock() - timedelta(seconds=3700))
    settings.OCC = dataclasses.replace(settings.OCC, census_interval=0)
    probe.probe()
    assert censuses() == 1, "0 is never"
    settings.OCC = dataclasses.replace(settings.OCC, census_interval=3600)
    probe.probe()
    assert censuses() == 2


def test_the_last_census_is_kept_however_old_it_is(cluster: ClusterUnderTest) -> None:
    counted(cluster)
    counted(cluster)
    long_ago = Clock() - timedelta(days=30)
    Job.objects.update(created_at=long_ago, finished_at=long_ago)
    last = Job.objects.last_of(Job.Kind.CENSUS)
    assert last is not None
    Job.objects.filter(pk=last.pk).update(finished_at=long_ago + timedelta(seconds=1))
    sweep.sweep()
    assert [job.pk for job in Job.objects.filter(kind=Job.Kind.CENSUS)] == [last.pk]


def test_files_that_come_and_go_during_a_census_contradict_no_tally(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tallies are the same before and after the census.

    During the census the nodes have nearly no copies, or three times as many.
    """
    files = [cluster.upload(content_of(100, "goes"))]
    take = census.take

    def restlessly(topology: Topology, prefix: str) -> census.Census:
        if prefix == "01":
            catalogue.delete(files.pop())
            reclaim.reclaim(0)
        if prefix in ("40", "41", "42"):
            files.append(cluster.upload(content_of(100, prefix)))
        if prefix == "fe":
            for file in files[1:]:
                catalogue.delete(file)
            reclaim.reclaim(0)
        return take(topology, prefix)

    monkeypatch.setattr(census, "take", restlessly)
    assert cluster.result_of(audit.request_census())["contradicted"] == []
    assert not Job.objects.filter(kind=Job.Kind.REBUILD_SKETCH).exists()
