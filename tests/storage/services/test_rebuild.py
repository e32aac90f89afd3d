from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import redis
from django.db import connection

from storage import phases
from storage.cluster.topology import Topology
from storage.models import File, Job, Node
from storage.services import catalogue, probe, reclaim, statistics, sweep
from storage.tasks import WORK
from storage.tracking import counting, trust
from storage.tracking.store import StoreUnavailable, store_of
from storage.volumes import FilesystemVolume
from tests.support.cluster import ClusterUnderTest, content_of


def registers(node_id: str) -> list[int]:
    seen = Topology.load()
    sketch = store_of(seen.cluster).snapshot([node_id]).sketches[node_id]
    return [int(n) for n in sketch.registers[np.flatnonzero(sketch.registers)]]


def test_after_a_flush_the_probe_has_all_sketches_rebuilt_exactly(
    cluster: ClusterUnderTest, redis_client: redis.Redis
) -> None:
    cluster.upload(content_of(30))
    before = {member.node_id: registers(member.node_id) for member in cluster.members()}
    redis_client.flushall()
    probe.probe()
    cluster.maintain()
    assert {member.node_id: registers(member.node_id) for member in cluster.members()} == before
    assert trust.untrusted(Topology.load()) == []


def test_level_counts_of_ten_fresh_chunks_on_three_of_five_nodes(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(10))
    gathered = statistics.gather()
    assert gathered.survey is not None
    levels = gathered.survey.level_counts
    assert sum(levels) == 10_000
    assert len(levels) == 6
    # With about 45 of 10,000 seeds, two of the chunks share a register, which is then at a higher level than others.
    assert levels[0] >= 9990
    assert levels[3] >= 8
    assert round(gathered.survey.union.estimate) == 10_000 - levels[0]
    assert gathered.replicas == 30


def test_a_writer_that_cannot_count_makes_the_sketch_untrusted(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 23: a process that cannot count a copy raises the sketch epoch, and commits it, before it writes."""

    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr("sketches.store.SketchStore.update", away)
        cluster.upload(content_of(3))
    untrusted = {member.node_id for member in trust.untrusted(Topology.load())}
    assert untrusted == set(Node.objects.filter(chunks__gt=0).values_list("node_id", flat=True))
    probe.probe()
    cluster.maintain()
    assert trust.untrusted(Topology.load()) == []
    assert cluster.false_negatives() == []


def test_uploads_during_a_rebuild_are_not_missed(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 24: copies that are written while the listing runs count in the shadow too."""
    cluster.upload(content_of(10, "before"))
    listing = FilesystemVolume.replicas
    uploaded: list[bool] = []

    def busy(volume: FilesystemVolume, prefix: str = "") -> Any:
        found = list(listing(volume, prefix))
        if prefix == "80" and not uploaded:
            uploaded.append(True)
            thread = threading.Thread(target=in_another_session, args=(cluster, content_of(40, "during")))
            thread.start()
            thread.join()
        return iter(found)

    monkeypatch.setattr(FilesystemVolume, "replicas", busy)
    for member in cluster.members():
        Job.request(Job.Kind.REBUILD_SKETCH, member.node_id)
    cluster.maintain()
    monkeypatch.setattr(FilesystemVolume, "replicas", listing)
    assert uploaded
    assert sum(member.stored_bytes for member in cluster.members()) == 3 * (len(content_of(10)) + len(content_of(40)))
    assert trust.untrusted(Topology.load()) == []
    assert cluster.false_negatives() == []


def test_a_rebuild_waits_for_a_batch_that_its_shadow_missed(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 24: the batch counts its copies before the shadow exists, and writes them after the listing has begun."""
    write = FilesystemVolume.write
    writing, go_on = threading.Event(), threading.Event()

    def slow(volume: FilesystemVolume, replicas: Mapping[str, bytes], **options: Any) -> None:
        writing.set()
        assert go_on.wait(20)
        write(volume, replicas, **options)

    monkeypatch.setattr(FilesystemVolume, "write", slow)
    uploading = threading.Thread(target=in_another_session, args=(cluster, content_of(5)))
    uploading.start()
    assert writing.wait(20)
    member = cluster.members()[0]
    job = Job.request(Job.Kind.REBUILD_SKETCH, member.node_id)
    opened = threading.Event()
    enter = phases.enter

    def note(phase: str) -> None:
        if phase == "rebuild.list":
            opened.set()
        enter(phase)

    monkeypatch.setattr(phases, "enter", note)
    rebuilding = threading.Thread(target=maintain_in_another_session, args=(cluster,))
    rebuilding.start()
    assert not opened.wait(0.5), "the listing begins only after the batch has ended"
    go_on.set()
    uploading.join()
    rebuilding.join()
    assert opened.is_set()
    job.refresh_from_db()
    assert job.state == Job.State.SUCCEEDED
    assert cluster.false_negatives() == []


def test_a_rebuild_corrects_the_tallies(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(6))
    exact = dict(Node.objects.values_list("node_id", "bytes"))
    Node.objects.update(chunks=999, bytes=1)
    for member in cluster.members():
        Job.request(Job.Kind.REBUILD_SKETCH, member.node_id)
    cluster.maintain()
    assert dict(Node.objects.values_list("node_id", "bytes")) == exact
    assert sum(Node.objects.values_list("chunks", flat=True)) == 18


def test_an_overcount_goes_with_the_next_rebuild(cluster: ClusterUnderTest) -> None:
    seen = Topology.load()
    ghost = hashlib.sha256(b"never written").hexdigest()
    counting.count(seen, {"node_000": [ghost]})
    assert registers("node_000") == [1]
    Job.request(Job.Kind.REBUILD_SKETCH, "node_000")
    cluster.maintain()
    assert registers("node_000") == []


def in_another_session(cluster: ClusterUnderTest, data: bytes) -> None:
    try:
        cluster.upload(data)
    finally:
        connection.close()


def maintain_in_another_session(cluster: ClusterUnderTest) -> None:
    try:
        cluster.maintain()
    finally:
        connection.close()


def test_a_write_that_ends_after_its_batch_counts_once_more(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of a node hangs during a write. A rebuild lists the node before the write ends."""
    write = FilesystemVolume.write
    go_on, written = threading.Event(), threading.Event()

    def hang(volume: FilesystemVolume, replicas: Mapping[str, bytes], **options: Any) -> None:
        if volume.root.name != "node_000":
            write(volume, replicas, **options)
            return
        assert go_on.wait(20)
        write(volume, replicas, **options)
        written.set()

    monkeypatch.setattr(FilesystemVolume, "write", hang)
    monkeypatch.setattr(cluster.members()[0].lane, "timeout", 0.2)
    cluster.upload(content_of(1), factor=5)
    cluster.members()[0].lane.breaker.succeeded()
    monkeypatch.setattr(cluster.members()[0].lane, "timeout", 10)
    Job.request(Job.Kind.REBUILD_SKETCH, "node_000")
    cluster.maintain()
    assert registers("node_000") == []
    go_on.set()
    assert written.wait(20)
    deadline = time.monotonic() + 10
    while registers("node_000") != [1]:
        assert time.monotonic() < deadline
    assert cluster.false_negatives() == []


def rebuild(cluster: ClusterUnderTest, node_id: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.result_of(Job.request(Job.Kind.REBUILD_SKETCH, node_id))
    return found


def reconciles() -> int:
    return Job.objects.filter(kind=Job.Kind.RECONCILE).count()


def heal(cluster: ClusterUnderTest) -> None:
    """Do the work that workers do by themselves, in three rounds."""
    for _ in range(3):
        cluster.maintain()
        sweep.sweep()
    cluster.maintain()


def test_copies_that_vanished_are_noticed_by_the_next_rebuild_and_made_again(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(120))
    copies = sorted(cluster.folder("node_001").glob("chunks/*/*"))
    for path in copies[:50]:
        path.unlink()
    found = rebuild(cluster, "node_001")
    assert (found["missed"], found["quiet"], found["chunks"]) == (50, True, len(copies) - 50)
    assert reconciles() == 1, "and the rebuild at its end has asked for no other one"
    heal(cluster)
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash, _ in file.content.manifest())
    assert cluster.false_negatives() == []
    assert reconciles() == 1


def test_one_copy_that_vanished_is_enough(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(10))
    next(cluster.folder("node_001").glob("chunks/*/*")).unlink()
    assert rebuild(cluster, "node_001")["missed"] == 1


def test_a_folder_that_was_replaced_by_an_older_snapshot_is_noticed(
    cluster: ClusterUnderTest, redis_client: redis.Redis
) -> None:
    """The directory is replaced while the service is stopped, so no process sees the node go or come back."""
    cluster.upload(content_of(30, "before"))
    snapshot = cluster.folder("node_003").with_suffix(".snapshot")
    shutil.copytree(cluster.folder("node_003"), snapshot)
    file = cluster.upload(content_of(60, "after"))
    shutil.rmtree(cluster.folder("node_003"))
    snapshot.rename(cluster.folder("node_003"))
    redis_client.flushall()
    probe.probe()
    heal(cluster)
    assert reconciles() == 1
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash, _ in file.content.manifest())
    assert trust.untrusted(Topology.load()) == []
    assert cluster.false_negatives() == []


def test_removals_during_a_rebuild_raise_no_alarm(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tally is unchanged, because as many copies are written during the rebuild as are removed."""
    file = cluster.upload(content_of(40, "deleted"))
    listing = FilesystemVolume.replicas
    busy = [True]

    def replace_all(volume: FilesystemVolume, prefix: str = "") -> Any:
        if volume.root.name == "node_000" and prefix == "00" and busy:
            busy.clear()
            thread = threading.Thread(target=replace_in_another_session, args=(cluster, file))
            thread.start()
            thread.join()
        return listing(volume, prefix)

    monkeypatch.setattr(FilesystemVolume, "replicas", replace_all)
    found = rebuild(cluster, "node_000")
    assert not busy
    assert (found["missed"], found["quiet"]) == (0, False)
    assert reconciles() == 0


def replace_in_another_session(cluster: ClusterUnderTest, file: File) -> None:
    """Remove every copy of ``file``, and raise the tally of node_000 as if as many copies were written there.

    The test assumes that these copies are in a range that the rebuild has already listed.
    """
    try:
        had = Node.objects.get(node_id="node_000")
        catalogue.delete(file)
        with pytest.MonkeyPatch.context() as patch:
            # Nothing is purged, as if the grace period had not passed.
            patch.setattr(reclaim, "purge_trash", lambda *_, **__: (0, 0))
            reclaim.reclaim(0)
        Node.tally({"node_000": (had.chunks, had.bytes)})
    finally:
        connection.close()


def test_a_busy_node_that_lacks_copies_raises_one_alarm(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.upload(content_of(60, "before"))
    for path in sorted(cluster.folder("node_000").glob("chunks/*/*"))[:20]:
        path.unlink()
    listing = FilesystemVolume.replicas
    busy = [True]

    def busily(volume: FilesystemVolume, prefix: str = "") -> Any:
        if volume.root.name == "node_000" and prefix == "80" and busy:
            busy.clear()
            thread = threading.Thread(target=in_another_session, args=(cluster, content_of(5, "during")))
            thread.start()
            thread.join()
        return listing(volume, prefix)

    monkeypatch.setattr(FilesystemVolume, "replicas", busily)
    found, again = [rebuild_alone("node_000") for _ in range(2)]
    assert not found["quiet"]
    assert 15 <= found["missed"] <= 20
    assert (again["missed"], again["quiet"]) == (0, True)
    assert reconciles() == 1
    assert Node.objects.get(node_id="node_000").chunks == again["chunks"]


def rebuild_alone(node_id: str) -> dict[str, Any]:
    """Rebuild the sketch of a node, and leave the jobs that the rebuild queues in the queue."""
    Job.request(Job.Kind.REBUILD_SKETCH, node_id)
    (job,) = Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)
    found = WORK[job.kind](job)
    job.succeed(found)
    assert job.kind == Job.Kind.REBUILD_SKETCH
    return dict(found)
