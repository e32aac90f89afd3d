from __future__ import annotations

import pytest
import redis

from storage import counters
from storage.cluster.topology import Topology
from storage.counters import Event
from storage.tracking import routing
from tests.support.cluster import ClusterUnderTest, content_of


def test_events_are_summed_over_processes_and_kept_while_redis_is_away(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters.flush()
    redis_client.delete(counters.KEY)
    counters.add(Event.FAILOVERS, 2)
    counters.add(Event.FAILOVERS)
    with monkeypatch.context() as patched:
        patched.setattr(counters, "connect", lambda: redis.Redis(unix_socket_path="/nowhere"))
        counters.flush()
    counters.flush()
    redis_client.hincrby(counters.KEY, Event.FAILOVERS, 4)  # Another process would count like this.
    assert counters.totals() == dict.fromkeys(Event, 0) | {Event.FAILOVERS: 7}


def test_a_read_that_meets_a_bad_copy_is_a_failover(cluster: ClusterUnderTest) -> None:
    counters.flush()
    before = counters.totals()
    data = content_of(1)
    file = cluster.upload(data)
    chunk_hash, _ = file.content.manifest()[0]
    for member in routing.locate(Topology.load(), [chunk_hash])[0].order[:2]:
        cluster.replica_path(member.node_id, chunk_hash).write_bytes(b"bad")
    assert cluster.download(file) == data
    cluster.maintain()
    counters.flush()
    after = counters.totals()
    assert after["failovers"] - before["failovers"] == 2
    assert after["corrupt_found"] - before["corrupt_found"] == 2
    assert after["replicas_repaired"] - before["replicas_repaired"] == 2


def test_a_look_that_was_useless_or_not_is_counted(redis_client: redis.Redis) -> None:
    counters.flush()
    before = counters.totals()
    counters.add(Event.LATER_LOOKS, False)
    counters.add(Event.LATER_LOOKS, True)
    counters.flush()
    assert counters.totals()["later_looks"] - before["later_looks"] == 1
