from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable

import pytest
from django.db import connection

from storage import phases
from storage.cluster.topology import Topology
from storage.exceptions import (
    InvalidRequest,
    LeaseLost,
    NoSuchNode,
    NotPossible,
    OutOfSpace,
    VolumeError,
    VolumeUnasked,
)
from storage.models import Cluster, Job, Node
from storage.services import cancel, catalogue, drain, retire
from storage.services.provision import provision
from storage.volumes import FilesystemVolume, Space
from tests.support.cluster import ClusterUnderTest, content_of


def claim_one() -> Job:
    (job,) = Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0)
    return job


def condition(node_id: str) -> str:
    return Node.objects.get(node_id=node_id).condition


def test_a_drained_node_is_empty_and_retired_and_every_file_whole(cluster: ClusterUnderTest) -> None:
    data = content_of(30)
    file = cluster.upload(data)
    orphan = hashlib.sha256(b"orphan").hexdigest()
    cluster.replica_path("node_002", orphan).write_bytes(b"orphan")
    deleted = cluster.upload(content_of(5, "deleted"))
    catalogue.delete(deleted)
    job = drain.request("node_002")
    assert condition("node_002") == "draining"
    cluster.result_of(job)
    assert condition("node_002") == "retired"
    assert not [path for path in (cluster.folder("node_002") / "chunks").rglob("*") if path.is_file()]
    assert all(len(cluster.holders(chunk_hash)) == 3 for chunk_hash, _ in file.content.manifest())
    assert cluster.download(file) == data
    assert cluster.false_negatives() == []
    assert Cluster.load().num_nodes == 4


def test_after_a_drain_the_number_of_nodes_may_be_lowered(cluster: ClusterUnderTest) -> None:
    cluster.result_of(drain.request("node_004"))
    provision(dataclasses.replace(cluster.configuration, num_nodes=4))
    assert Node.objects.exclude(state=Node.State.RETIRED).count() == 4


def test_a_plan_says_what_has_to_be_written_and_changes_nothing(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(10))
    held = Node.objects.get(node_id="node_000")
    plan = drain.plan("node_000")
    assert (plan.replicas, plan.bytes, plan.to_write) == (held.chunks, held.bytes, held.bytes)
    assert condition("node_000") == "active"
    assert not Job.objects.filter(queue=Job.Queue.MAINTENANCE).exists()


def test_a_drain_that_would_leave_too_few_nodes_is_refused(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(1), factor=5)
    with pytest.raises(InvalidRequest, match="4 active nodes would be left"):
        drain.request("node_000")
    assert condition("node_000") == "active"
    with pytest.raises(NoSuchNode):
        drain.request("node_017")


def test_a_drain_for_which_the_others_have_no_room_is_refused(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.upload(content_of(5))
    monkeypatch.setattr(FilesystemVolume, "space", lambda self: Space("disk", 100, 1000))
    with pytest.raises(OutOfSpace):
        drain.request("node_000")


def test_a_node_that_is_away_cannot_be_drained_but_given_up(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(12))
    with pytest.raises(InvalidRequest, match="drain it"):
        retire.retire("node_003")
    cluster.take_offline("node_003")
    with pytest.raises(InvalidRequest, match="offline"):
        drain.request("node_003")
    assert retire.plan("node_003") == 0
    cluster.result_of(retire.retire("node_003"))
    assert condition("node_003") == "retired"
    assert Cluster.load().num_nodes == 4
    hashes = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    assert all(len(set(cluster.holders(chunk_hash)) - {"node_003"}) == 3 for chunk_hash in hashes)


def test_a_node_that_a_process_could_not_ask_is_not_given_up(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unasked(_: FilesystemVolume) -> None:
        raise VolumeUnasked("Too many open files")

    monkeypatch.setattr(FilesystemVolume, "identity", unasked)
    for act in (retire.plan, retire.retire):
        with pytest.raises(VolumeUnasked):
            act("node_003")
    assert condition("node_003") == "active"


def test_a_node_that_failed_a_moment_ago_is_asked_before_it_is_given_up(cluster: ClusterUnderTest) -> None:
    breaker = Topology.load().member("node_003").lane.breaker
    while not breaker.is_open:
        breaker.failed()
    with pytest.raises(InvalidRequest, match="drain it"):
        retire.retire("node_003")
    assert condition("node_003") == "active"


def test_a_cancelled_drain_leaves_the_node_active(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.upload(content_of(10))
    job = drain.request("node_000")
    running = claim_one()
    monkeypatch.setattr(phases, "enter", lambda phase: cancel.cancel(job) if phase == "drain.write" else None)
    with pytest.raises(LeaseLost):
        drain.drain(running)
    assert condition("node_000") == "active"
    with pytest.raises(NotPossible):
        cancel.cancel(Job.objects.get(pk=job.pk))


def test_a_drain_that_is_cancelled_at_its_very_end_does_not_retire_the_node(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is active again takes copies, so the end of the cancelled drain must not retire it."""
    job = drain.request("node_000")
    running = claim_one()
    monkeypatch.setattr(phases, "enter", lambda phase: cancel.cancel(job) if phase == "drain.retire" else None)
    with pytest.raises(LeaseLost):
        drain.drain(running)
    assert condition("node_000") == "active"


def test_a_drain_whose_worker_died_after_the_node_was_retired_succeeds(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(4))
    job = drain.request("node_000")
    drain.drain(claim_one())  # The worker dies before it can commit the end of the job.
    assert condition("node_000") == "retired"
    Job.objects.filter(pk=job.pk).update(state=Job.State.QUEUED)
    assert cluster.result_of(job)["moved"] > 0


def test_a_chunk_that_cannot_be_read_elsewhere_keeps_the_node(cluster: ClusterUnderTest) -> None:
    """A drain never removes the last good copy.

    If the last good copy is on the node, the drain ends with an error, and the node keeps draining.
    """
    file = cluster.upload(content_of(1))
    chunk_hash, _ = file.content.manifest()[0]
    kept, *others = cluster.holders(chunk_hash)
    for node_id in [node.node_id for node in Node.objects.all() if node.node_id != kept]:
        cluster.take_offline(node_id)
    Job.objects.all().delete()
    Node.objects.filter(node_id=kept).update(state=Node.State.DRAINING)
    Job.objects.all().delete()
    Job.ensure(Job.Kind.DRAIN, kept)
    with pytest.raises(VolumeError):
        drain.drain(claim_one())
    assert cluster.replica_path(kept, chunk_hash).exists()
    assert condition(kept) == "draining"
    assert others


def test_an_upload_that_chose_the_node_before_it_drained_does_not_write_there_after_it_was_empty(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 20: a drain waits until all batches in flight have ended, and ends only if the next listing is empty."""
    data = content_of(3)
    accepted = cluster.accept(data)
    before = Topology.load()
    outcome: list[str] = []

    def drain_everything(operation: Callable[[], object]) -> None:
        try:
            operation()
            outcome.append("done")
        finally:
            connection.close()

    preferred = before.members[0].node_id
    real_load = Topology.load
    held_up = threading.Event()

    def load_early() -> Topology:
        found = real_load()
        if not held_up.is_set():
            held_up.set()  # The worker has read the nodes. One of the nodes is drained before the worker writes.
            drain.request(preferred)
            thread = threading.Thread(target=drain_everything, args=(cluster.maintain,))
            thread.start()
            thread.join()
        return found

    monkeypatch.setattr(
        "storage.services.ingest.batch.Topology", type("Late", (), {"recent": staticmethod(load_early)})
    )
    cluster.ingest()
    assert outcome == ["done"]
    assert condition(preferred) == "retired"
    accepted.job.refresh_from_db()
    assert accepted.job.state == Job.State.SUCCEEDED
    assert not [path for path in (cluster.folder(preferred) / "chunks").rglob("*") if path.is_file()]
    assert all(len(cluster.holders(h)) == 3 for h, _ in accepted.file.content.manifest())
