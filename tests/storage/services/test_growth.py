"""Sketches that grow, that drift, or that have stuck registers are rebuilt.

At no moment of a rebuild does a trusted sketch deny a copy that exists.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis
from django.db import connection, transaction

from sketches.wire import HEADER_SIZE, MAX_N_PRIME
from storage import phases
from storage.cluster.topology import Topology
from storage.conf import LARGEST_SKETCH
from storage.models import Cluster, Job, Node
from storage.services import probe
from storage.services.provision import provision
from storage.tracking import counting, trust
from storage.tracking.store import ShadowLost, store_of
from storage.tracking.trust import Reason
from tests.support.cluster import ClusterUnderTest, content_of


def sizes() -> set[int]:
    seen = Topology.load()
    headers = store_of(seen.cluster).lookup([member.node_id for member in seen.members], []).headers
    return {header.n_prime for header in headers.values() if header is not None}


def rebuild_all(cluster: ClusterUnderTest) -> list[dict[str, Any]]:
    probe.probe()
    return [job.result or {} for job in cluster.maintain() if job.kind == Job.Kind.REBUILD_SKETCH]


def inexact(cluster: ClusterUnderTest) -> list[str]:
    """The nodes whose registers differ from a sketch made from a listing of their volume."""
    seen = Topology.load()
    snapshot = store_of(seen.cluster).snapshot([member.node_id for member in seen.members])
    wrong = []
    for member in seen.members:
        sketch = snapshot.sketches[member.node_id]
        listed = type(sketch)(sketch.n_prime, sketch.tau, sketch.seed)
        listed.add([replica.chunk_hash for replica in member.lane.volume.replicas()])
        if not np.array_equal(sketch.registers, listed.registers):
            wrong.append(member.node_id)
    return wrong


def hashes(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{i}".encode()).hexdigest() for i in range(count)]


# -- the size that the sketches should have --------------------------------


def test_the_size_rises_by_powers_of_two_and_never_falls(cluster: ClusterUnderTest) -> None:
    base = Cluster.load().n_prime
    assert Cluster.grow(4 * base)
    assert [Cluster.grow(size) for size in (base, 2 * base, 4 * base)] == [False] * 3
    assert Cluster.load().n_prime == 4 * base
    for size in (0, base // 2, 3 * base, 4 * base + 1, -base):
        with pytest.raises(ValueError, match="power of two"):
            Cluster.grow(size)
    assert Cluster.load().n_prime == 4 * base


def test_growth_ends_at_what_redis_can_hold(cluster: ClusterUnderTest) -> None:
    base = Cluster.load().n_prime
    assert LARGEST_SKETCH == MAX_N_PRIME == (512 << 20) - HEADER_SIZE
    assert Cluster.grow(base << 40)
    assert LARGEST_SKETCH // 2 < Cluster.load().n_prime <= LARGEST_SKETCH
    assert not Cluster.grow(base << 41)


def test_who_grows_it_late_does_not_undo_what_another_did(cluster: ClusterUnderTest) -> None:
    base = Cluster.load().n_prime
    raised = []

    def grow() -> None:
        try:
            raised.append(Cluster.grow(2 * base))
        finally:
            connection.close()

    late = threading.Thread(target=grow)
    with transaction.atomic():
        assert Cluster.grow(8 * base)
        late.start()
        with connection.cursor() as cursor:
            waiting = 0
            while not waiting and late.is_alive():
                cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                waiting = cursor.fetchone()[0]
    late.join()
    assert raised == [False]
    assert Cluster.load().n_prime == 8 * base


def test_a_restart_keeps_the_size_unless_the_environment_changed(cluster: ClusterUnderTest) -> None:
    base = Cluster.load().n_prime
    Cluster.grow(4 * base)
    provision(cluster.configuration)
    assert Cluster.load().n_prime == 4 * base
    provision(dataclasses.replace(cluster.configuration, num_nodes=6))
    assert Cluster.load().n_prime == 4 * base
    provision(dataclasses.replace(cluster.configuration, num_nodes=6, tau=cluster.configuration.tau + 1))
    assert Cluster.load().n_prime == base


def test_a_new_node_begins_at_the_present_size(cluster: ClusterUnderTest) -> None:
    Cluster.grow(8 * Cluster.load().n_prime)
    provision(dataclasses.replace(cluster.configuration, num_nodes=6))
    assert "node_005" not in trust.outdated(Topology.load())


# -- growth ----------------------------------------------------------------


def test_growth_is_found_and_all_sketches_are_exact_at_the_new_size(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(60))
    Cluster.grow(8 * Cluster.load().n_prime)
    seen = Topology.load()
    assert set(trust.outdated(seen).values()) == {Reason.SIZE}
    assert trust.untrusted(seen) == [], "the former size goes on being trusted"
    found = rebuild_all(cluster)
    assert {result["reason"] for result in found} == {"size"}
    assert [result["differences"]["differing"] for result in found] == [0] * 5, "compared at the former size"
    assert trust.outdated(Topology.load()) == {}
    assert sizes() == {8 * cluster.configuration.n_prime}
    assert inexact(cluster) == []


def test_while_sizes_are_mixed_all_goes_on(cluster: ClusterUnderTest) -> None:
    """Two of five nodes have the new size: adds, removals, routes and statistics are right for both sizes."""
    file = cluster.upload(content_of(40))
    Cluster.grow(4 * Cluster.load().n_prime)
    for node_id in ("node_000", "node_003"):
        Job.request(Job.Kind.REBUILD_SKETCH, node_id)
    cluster.maintain()
    assert len(sizes()) == 2
    other = cluster.upload(content_of(40, "meanwhile"))
    assert (cluster.download(file), cluster.download(other)) == (content_of(40), content_of(40, "meanwhile"))
    assert cluster.false_negatives() == []
    assert inexact(cluster) == []
    seen = Topology.load()
    for member in seen.members:
        replica = next(member.lane.volume.replicas())
        builds = counting.builds(seen, [member.node_id])
        assert member.lane.volume.trash(replica.chunk_hash, "0" * 32)
        counting.uncount(seen, {member.node_id: [replica.chunk_hash]}, builds)
    assert inexact(cluster) == []


def test_growth_during_a_rebuild_is_found_again(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.upload(content_of(20))
    base = Cluster.load().n_prime
    Cluster.grow(2 * base)
    seen = during(monkeypatch, "rebuild.list", lambda: Cluster.grow(4 * base))
    Job.request(Job.Kind.REBUILD_SKETCH, "node_000")
    cluster.maintain()
    assert seen == [True]
    assert 2 * base in sizes(), "swapped in at the size that it was opened with"
    assert trust.outdated(Topology.load())["node_000"] == Reason.SIZE
    rebuild_all(cluster)
    assert sizes() == {4 * base}
    assert inexact(cluster) == [] and cluster.false_negatives() == []


@pytest.mark.parametrize("phase", ["rebuild.list", "rebuild.swap"])
def test_what_loses_counts_during_a_growing_rebuild_ends_trust(
    cluster: ClusterUnderTest, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    cluster.upload(content_of(20))
    Cluster.grow(2 * Cluster.load().n_prime)
    during(monkeypatch, phase, lambda: Node.distrust_sketches(["node_000"]))
    Job.request(Job.Kind.REBUILD_SKETCH, "node_000")
    cluster.maintain()
    assert trust.outdated(Topology.load())["node_000"] == Reason.STALE
    during(monkeypatch, phase, redis_client.flushall)
    Job.request(Job.Kind.REBUILD_SKETCH, "node_001")
    with pytest.raises(ShadowLost):
        cluster.maintain()
    assert set(trust.outdated(Topology.load()).values()) == {Reason.MISSING}


def during(monkeypatch: pytest.MonkeyPatch, phase: str, act: Callable[[], Any]) -> list[Any]:
    """Have ``act`` called once, when a process enters ``phase``.

    The result of ``act`` is appended to the list that is returned.
    """
    results: list[Any] = []

    def enter(entered: str) -> None:
        if entered == phase and not results:
            results.append(act())

    monkeypatch.setattr(phases, "enter", enter)
    return results


# -- another base size -------------------------------------------------------


def test_who_has_not_heard_of_another_n_prime_ends_trust_before_it_writes(cluster: ClusterUnderTest) -> None:
    """A worker loads the topology before the restart with another N_PRIME, and counts after the rebuild."""
    late = Topology.load()
    provision(dataclasses.replace(cluster.configuration, n_prime=500))
    rebuild_all(cluster)
    assert trust.untrusted(Topology.load()) == []
    counting.count(late, {"node_000": hashes(1)})
    assert [member.node_id for member in trust.untrusted(Topology.load())] == ["node_000"]


def test_a_flush_under_load_costs_two_rebuilds_at_most(
    cluster: ClusterUnderTest, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that counts while a sketch is missing raises the node's sketch epoch.

    Here a worker counts after the rebuild has read the epoch, and before it opens the shadow. The rebuild then makes a
    sketch with an old epoch, so a second rebuild is needed.
    """
    redis_client.flushall()
    seen = Topology.load()
    during(monkeypatch, "rebuild.open", lambda: counting.count(seen, {"node_000": hashes(1)}))
    Job.request(Job.Kind.REBUILD_SKETCH, "node_000")
    cluster.maintain()
    assert trust.outdated(Topology.load())["node_000"] == Reason.STALE
    epoch = Node.objects.get(node_id="node_000").sketch_epoch
    counting.count(seen, {"node_000": hashes(1)})
    assert Node.objects.get(node_id="node_000").sketch_epoch == epoch
    rebuild_all(cluster)
    assert trust.untrusted(Topology.load()) == []


# -- drift -----------------------------------------------------------------


def set_registers(client: redis.Redis, cluster: Cluster, node_id: str, change: Callable[[np.ndarray], None]) -> None:
    key = f"occ:{cluster.uuid}:sketch:{node_id}"
    value = client.get(key)
    assert isinstance(value, bytes)
    registers = np.frombuffer(value, np.uint8, offset=HEADER_SIZE).copy()
    change(registers)
    client.set(key, value[:HEADER_SIZE] + registers.tobytes())


def test_a_rebuild_finds_counts_and_mends_registers_that_differ(
    cluster: ClusterUnderTest, redis_client: redis.Redis
) -> None:
    cluster.upload(content_of(50), factor=5)

    def damage(registers: np.ndarray) -> None:
        held, empty = np.flatnonzero(registers), np.flatnonzero(registers == 0)
        registers[held[:3]] = 0
        registers[held[3:5]] += 2
        registers[empty[:4]] = 1

    set_registers(redis_client, Cluster.load(), "node_002", damage)
    assert inexact(cluster) == ["node_002"] and len(cluster.false_negatives()) >= 3
    job = Job.request(Job.Kind.REBUILD_SKETCH, "node_002")
    cluster.maintain()
    job.refresh_from_db()
    assert job.result is not None
    found = job.result["differences"]
    assert (found["differing"], found["over_counts"]) == (9, 6)
    assert (found["under_counts"], found["false_negatives"]) == (3, 3)
    assert (job.result["reason"], job.result["quiet"]) == ("requested", True)
    assert inexact(cluster) == [] and cluster.false_negatives() == []
    assert not any(chunk_hash in str(job.result) for chunk_hash in hashes(50)), "RACES 29"


def test_a_busy_rebuild_says_so(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.upload(content_of(5), factor=5)
    during(monkeypatch, "rebuild.swap", lambda: Node.tally({"node_000": (1, 4096)}))
    job = Job.request(Job.Kind.REBUILD_SKETCH, "node_000")
    cluster.maintain()
    job.refresh_from_db()
    assert job.result is not None and job.result["quiet"] is False


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda registers: registers.__setitem__(np.flatnonzero(registers)[:40], 0), Reason.DRIFTED),
        (lambda registers: registers.__setitem__(slice(0, 4000), 1), Reason.DRIFTED),
        (lambda registers: registers.__setitem__(np.flatnonzero(registers)[:12], 10), Reason.WORN),
        (lambda registers: registers.__setitem__(np.flatnonzero(registers)[:5], 0), None),
    ],
    ids=["lost", "surplus", "worn", "within what is under way"],
)
def test_the_probe_looks_into_one_sketch_a_round(
    cluster: ClusterUnderTest,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[np.ndarray], None],
    reason: Reason | None,
) -> None:
    cluster.upload(content_of(60), factor=5)
    set_registers(redis_client, Cluster.load(), "node_003", change)
    assert trust.outdated(Topology.load()) == {}
    queued = Job.objects.filter(kind=Job.Kind.REBUILD_SKETCH, state=Job.State.QUEUED)
    for turn in range(5):
        monkeypatch.setattr(probe, "_round", lambda turn=turn: turn)
        probe.probe()
        assert queued.exists() == (reason is not None and turn >= 3)
    if reason is None:
        return
    assert queued.get().result == {"reason": str(reason)}
    cluster.maintain()
    assert inexact(cluster) == []


def test_what_a_rebuild_does_not_mend_is_not_rebuilt_all_the_time(
    cluster: ClusterUnderTest, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drift(registers: np.ndarray) -> None:
        registers[:4000] = 1

    monkeypatch.setattr(probe, "_round", lambda: 0)
    set_registers(redis_client, Cluster.load(), "node_000", drift)
    assert len(rebuild_all(cluster)) == 1
    set_registers(redis_client, Cluster.load(), "node_000", drift)
    assert rebuild_all(cluster) == []
    Job.objects.update(finished_at="2020-01-01T00:00:00Z")
    assert len(rebuild_all(cluster)) == 1


def test_registers_that_a_small_tau_fills_are_no_wear(cluster: ClusterUnderTest) -> None:
    provision(dataclasses.replace(cluster.configuration, tau=1))
    rebuild_all(cluster)
    cluster.upload(content_of(60), factor=5)
    seen = Topology.load()
    assert [trust.inspect(seen, member) for member in seen.members] == [None] * 5


def test_each_loss_has_its_reason(cluster: ClusterUnderTest, redis_client: redis.Redis) -> None:
    uuid = Cluster.load().uuid
    redis_client.delete(f"occ:{uuid}:sketch:node_000")
    redis_client.setrange(f"occ:{uuid}:sketch:node_001", 40, b"\xff\xfe")
    Node.distrust_sketches(["node_002"])
    probe.probe()
    jobs = {job.subject: (job.result or {})["reason"] for job in Job.objects.filter(kind=Job.Kind.REBUILD_SKETCH)}
    assert jobs == {"node_000": "missing", "node_001": "missing", "node_002": "stale"}
