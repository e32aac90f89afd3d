from __future__ import annotations

from collections.abc import Sequence

import pytest

from storage.cluster.topology import Topology
from storage.models import Content, Job, Node
from storage.replicas import moving
from storage.replicas.moving import Move, Moved
from storage.services import probe, repair, sweep
from tests.support.cluster import ClusterUnderTest, content_of


def hashes_of(cluster: ClusterUnderTest, chunks: int, factor: int = 3) -> list[str]:
    file = cluster.upload(content_of(chunks), factor=factor)
    return [chunk_hash for chunk_hash, _ in file.content.manifest()]


def lose(cluster: ClusterUnderTest, chunk_hash: str, copies: int) -> None:
    for node_id in cluster.holders(chunk_hash)[:copies]:
        cluster.replica_path(node_id, chunk_hash).unlink()


def test_every_chunk_is_restored_the_most_endangered_first(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, whole, lost = hashes_of(cluster, 4)
    lose(cluster, one, 2)
    lose(cluster, two, 1)
    lose(cluster, lost, 3)
    order: list[str] = []
    carry_out = moving.carry_out

    def note_and_carry_out(topology: Topology, moves: Sequence[Move], *, operation: str) -> Moved:
        order.extend(move.chunk_hash for move in moves)
        return carry_out(topology, moves, operation=operation)

    monkeypatch.setattr(moving, "carry_out", note_and_carry_out)
    result = cluster.result_of(repair.request_all())
    assert result == {"added": 3, "lost": 1, "unreadable": 0}
    assert order == [one, two]
    assert [len(cluster.holders(chunk_hash)) for chunk_hash in (one, two, whole, lost)] == [3, 3, 3, 0]
    assert cluster.false_negatives() == []
    content = Content.objects.get()
    assert (content.retrievable, content.min_replication) == (False, 0), "made exact after the repair"


def test_the_plan_says_what_would_be_written_and_changes_nothing(cluster: ClusterUnderTest) -> None:
    one, two, lost = hashes_of(cluster, 3)[:3]
    lose(cluster, one, 2)
    lose(cluster, two, 1)
    lose(cluster, lost, 3)
    assert repair.plan_all() == {0: (1, 0), 1: (1, 2 * 4096), 2: (1, 4096)}
    assert not Job.objects.filter(queue=Job.Queue.MAINTENANCE).exists()


def test_a_lost_node_is_made_good_on_the_others(cluster: ClusterUnderTest) -> None:
    hashes = hashes_of(cluster, 20)
    cluster.take_offline("node_001")
    cluster.result_of(repair.request_all())
    assert all(len(set(cluster.holders(chunk_hash)) - {"node_001"}) == 3 for chunk_hash in hashes)


def test_copies_on_a_draining_node_do_not_count(cluster: ClusterUnderTest) -> None:
    hashes = hashes_of(cluster, 10)
    Node.objects.filter(node_id="node_001").update(state=Node.State.DRAINING)
    cluster.result_of(repair.request_all())
    assert all(len(set(cluster.holders(chunk_hash)) - {"node_001"}) == 3 for chunk_hash in hashes)


def test_many_short_files_are_mended_by_one_job(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "HEAL_CONTENTS", 3)
    files = [cluster.upload(content_of(1, str(i))) for i in range(6)]
    Content.objects.update(min_replication=1)
    sweep.sweep()
    sweep.sweep()
    open_jobs = Job.objects.open().filter(queue=Job.Queue.MAINTENANCE)
    assert list(open_jobs.values_list("kind", flat=True)) == [Job.Kind.REPAIR_ALL]
    Content.objects.filter(pk__in=[file.content_id for file in files[1:]]).update(min_replication=3)
    Job.objects.all().delete()
    sweep.sweep()
    assert list(Job.objects.open().values_list("kind", flat=True)) == [Job.Kind.REBALANCE]


def test_what_cannot_be_repaired_is_left_for_when_it_can(cluster: ClusterUnderTest) -> None:
    (chunk_hash,) = hashes_of(cluster, 1, factor=5)
    cluster.take_offline("node_000")
    assert cluster.result_of(repair.request_all())["added"] == 0
    cluster.bring_back("node_000")
    probe.probe()
    assert len(cluster.holders(chunk_hash)) == 5
