"""/health, /status, /verify, /rebalance and /jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, connection
from django.test import Client

from storage.cluster.topology import Topology
from storage.models import Content, Job, Node, refusals
from storage.services import health, survey
from storage.staging import files
from storage.tracking import counting, surveying
from storage.tracking.store import StoreUnavailable
from storage.tracking.surveying import surveys
from tests.support.api import assert_problem
from tests.support.cluster import ClusterUnderTest, content_of


class Away:
    """A connection to a server that is away: every use of it raises ``error``."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        raise self.error


def rebalance(file_hash: str, body: dict[str, Any] | None = None, **headers: Any) -> Any:
    return Client().post(f"/rebalance/{file_hash}", body, content_type="application/json", headers=headers)


def test_a_healthy_cluster_says_so(cluster: ClusterUnderTest) -> None:
    response = Client().get("/health")
    assert response.status_code == 200
    assert response.json() == {"status": "healthy", "nodes": 5, "ready": True}


def test_without_redis_the_cluster_serves_and_says_what_it_lacks(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "connect", lambda: Away(redis.ConnectionError("connection refused")))
    response = Client().get("/health")
    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["ready"], body["nodes"]) == ("degraded", True, 5)
    assert [words.partition(":")[0] for words in body["degraded"]] == ["Redis does not answer, or refuses"]
    assert "connection refused" in body["degraded"][0]


def test_health_without_postgresql_is_503_and_says_what_to_do(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "connection", Away(OperationalError()))
    response = Client().get("/health")
    assert response.status_code == 503
    assert response.json()["ready"] is False
    assert response.json()["failing"] == {"postgresql": refusals.AWAY}
    assert int(response.headers["Retry-After"]) > 0


@pytest.fixture
def read_only(cluster: ClusterUnderTest) -> Iterator[None]:
    """Make PostgreSQL read-only, as after a failover: PostgreSQL answers, but accepts no changes."""
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
        yield
        cursor.execute("SET default_transaction_read_only = off")


def test_a_read_only_postgresql_is_a_503_that_says_so(cluster: ClusterUnderTest, read_only: None) -> None:
    response = Client().post("/upload", {"file": SimpleUploadedFile("a.txt", b"refused")})
    assert assert_problem(response, 503)["detail"] == refusals.READ_ONLY
    response = Client().get("/health")
    assert response.status_code == 503
    assert response.json()["failing"] == {"postgresql": refusals.READ_ONLY}


def test_a_refusal_that_only_writers_meet_is_remembered_for_a_while(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "_last", None)
    full = OperationalError("could not extend file")
    full.__cause__ = psycopg.errors.DiskFull()
    assert refusals.words(full) == refusals.DISK_FULL
    assert Client().get("/health").json()["failing"] == {"postgresql": refusals.DISK_FULL}
    monkeypatch.setattr(refusals, "REMEMBERED_SECONDS", 0.0)
    assert Client().get("/health").status_code == 200


def test_health_names_what_is_degraded(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    file = cluster.upload(content_of(1))
    Node.distrust_sketches(["node_001"])
    cluster.take_offline(cluster.holders(file.content.manifest()[0][0])[0])
    Content.objects.update(min_replication=2)
    monkeypatch.setattr(health, "WAITING_SECONDS", 0.0)
    cluster.accept(content_of(2))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    body = Client().get("/health").json()
    assert (body["status"], body["nodes"]) == ("degraded", 4)
    names = {words.partition(":")[0] for words in body["degraded"]}
    assert {name for name in names if not name.startswith("node_")} == {
        "files have fewer copies than they should",
        "uploads wait for a worker",
        "the clock of this API is not PostgreSQL's",
        "sketches are not trusted",
    }
    assert len(names) == 5


def test_health_without_enough_nodes_is_503_and_names_them(cluster: ClusterUnderTest) -> None:
    # The probe has not yet seen that the nodes are away: /health asks the volumes itself.
    for number in range(4):
        folder = cluster.folder(f"node_00{number}")
        folder.rename(folder.with_suffix(".away"))
        response = Client().get("/health")
        assert (response.status_code, response.json()["nodes"]) == (200 if number < 3 else 503, 4 - number)
    assert set(response.json()["failing"]) == {"nodes"}


def test_without_postgresql_every_endpoint_is_a_503(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise OperationalError("away")

    with monkeypatch.context() as patched:
        patched.setattr("django.db.backends.base.base.BaseDatabaseWrapper.ensure_connection", away)
        paths = ("/status", "/files", *(f"/{name}/{'0' * 64}" for name in ("files", "download", "verify")))
        responses = [Client().get(path) for path in paths]
    for response in responses:
        assert assert_problem(response, 503)["detail"] == refusals.AWAY
        assert int(response.headers["Retry-After"]) > 0


def test_status_has_the_fields_of_the_readme(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(10))
    body = Client().get("/status").json()
    network = body["network"]
    assert (network["total_nodes"], network["total_chunks"], network["average_replication"]) == (5, 30, 3.0)
    assert network["union_size"] == pytest.approx(10, abs=1)
    assert (sum(network["level_counts"]), len(network["level_counts"])) == (10_000, 6)
    assert network["total_storage_mb"] == pytest.approx(3 * 38_912 / 2**20, abs=0.01)
    assert [node["node_id"] for node in body["nodes"]] == [f"node_00{i}" for i in range(5)]
    assert all(node.keys() >= {"node_id", "chunks", "size_mb", "union_size", "state"} for node in body["nodes"])
    assert sum(node["chunks"] for node in body["nodes"]) == 30
    assert body["config"] == {
        "num_nodes": 5,
        "n_prime": 10_000,
        "tau": 10,
        "replication_factor": 3,
        "chunk_size": 4096,
    }
    assert body["files_stored"] == 1


def test_status_answers_without_redis(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(surveying, "survey", away)
    body = Client().get("/status").json()
    assert (body["network"]["sketches"], body["network"]["union_size"]) == ("unavailable", None)
    assert (body["estimates"], body["overlap"], body["sketch"]["trusted"]) == (None, None, False)


def test_status_estimates_with_intervals(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(200))
    body = Client().get("/status").json()
    estimates = body["estimates"]
    for found in (estimates["union"], estimates["average_replication"], estimates["chunks_below_target"]):
        assert found["lower_bound"] <= found["estimate"] <= found["upper_bound"]
        assert not found["saturated"]
    assert estimates["union"]["lower_bound"] <= 200 <= estimates["union"]["upper_bound"]
    assert estimates["average_replication"]["upper_bound"] == 3
    assert estimates["chunks_below_target"]["lower_bound"] == 0
    assert [(one["replicas"], one["or_more"]) for one in estimates["spectrum"]] == [(1, False), (2, False), (3, True)]
    sketch = body["sketch"]
    assert (sketch["n_prime"], sketch["trusted"]) == (10_000, True)
    assert 10_000 < sketch["bytes_per_node"] < 10_100
    assert sketch["load"] == pytest.approx(0.02, rel=0.05)
    assert sketch["false_positive_rate"] == pytest.approx(0.012, rel=0.1)
    overlap = body["overlap"]
    assert overlap["nodes"] == [f"node_00{i}" for i in range(5)]
    for a in range(5):
        assert overlap["observed"][a][a] == pytest.approx(body["nodes"][a]["chunks"], abs=3)
        for b in range(5):
            assert overlap["observed"][a][b] == overlap["observed"][b][a]
            assert abs(overlap["z"][a][b]) < 4
    # The matrix counts 3 × 3 pairs of nodes for each chunk.
    assert sum(map(sum, overlap["expected"])) == pytest.approx(200 * 9, rel=0.02)


def test_status_sees_chunks_that_lost_a_replica(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(100))
    topology = Topology.load()
    builds = counting.builds(topology, [member.node_id for member in topology.members])
    for chunk_hash, _ in file.content.manifest()[:10]:
        node_id = cluster.holders(chunk_hash)[0]
        cluster.replica_path(node_id, chunk_hash).unlink()
        counting.uncount(topology, {node_id: [chunk_hash]}, builds)
    below = Client().get("/status").json()["estimates"]["chunks_below_target"]
    assert below["lower_bound"] > 5
    assert below["lower_bound"] <= 10 <= below["upper_bound"]


def test_status_of_large_sketches_is_that_of_the_last_survey(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "LARGE", 1000)
    cluster.upload(content_of(20))
    survey.survey()
    first = Client().get("/status").json()
    cluster.upload(content_of(30, "more"))
    second = Client().get("/status").json()
    assert first["sketch"]["as_of"] == second["sketch"]["as_of"]
    assert first["estimates"] == second["estimates"]
    assert first["overlap"] == second["overlap"]
    survey.survey()
    third = Client().get("/status").json()
    assert third["sketch"]["as_of"] > first["sketch"]["as_of"]
    assert third["estimates"]["union"]["lower_bound"] <= 50 <= third["estimates"]["union"]["upper_bound"]


def test_route_names_the_nodes_in_the_order_of_a_download(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(50))
    for chunk_hash, _ in file.content.manifest():
        body = Client().get(f"/route/{chunk_hash}").json()
        assert body["chunk_hash"] == chunk_hash
        candidates = body["candidates"]
        holders = set(cluster.holders(chunk_hash))
        # If registers collide, more than three candidates have a register above 0.
        likely = [candidate for candidate in candidates if candidate["register"] > 0]
        assert candidates[: len(likely)] == likely
        assert holders <= {candidate["node_id"] for candidate in likely}
        assert all(0 < candidate["probability"] <= 1 for candidate in likely)
        shared = sum(candidate["register"] for candidate in likely) > 3
        least = min(candidate["probability"] for candidate in likely if candidate["node_id"] in holders)
        assert shared or least > 0.9
        assert all(candidate["probability"] == 0 for candidate in candidates[len(likely) :])


def test_route_refuses_what_no_file_has(cluster: ClusterUnderTest) -> None:
    for status, chunk_hash in ((404, "0" * 64), (400, "xyz")):
        assert_problem(Client().get(f"/route/{chunk_hash}"), status)


def test_verify_has_the_fields_of_the_readme(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(2), name="example.pdf")
    body = Client().get(f"/verify/{file.content.file_hash}").json()
    assert (body["file_hash"], body["file_name"]) == (file.content.file_hash, "example.pdf")
    assert (body["retrievable"], body["missing_chunks"]) == (True, [])
    assert body["replication"] == {"min": 3, "avg": 3.0, "max": 3}
    manifest = file.content.manifest()
    assert body["chunks"] == [
        {"index": i, "hash": chunk_hash, "size": size, "replicas": 3, "nodes": cluster.holders(chunk_hash)}
        for i, (chunk_hash, size) in enumerate(manifest)
    ]


def test_verify_asks_the_volumes(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"lost")
    chunk_hash = file.content.manifest()[0][0]
    for node_id in cluster.holders(chunk_hash):
        cluster.replica_path(node_id, chunk_hash).unlink()
    body = Client().get(f"/verify/{file.content.file_hash}").json()
    assert (body["retrievable"], body["missing_chunks"]) == (False, [chunk_hash])


def test_only_a_deep_verify_sees_a_damaged_copy(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"damaged")
    chunk_hash = file.content.manifest()[0][0]
    cluster.replica_path(cluster.holders(chunk_hash)[0], chunk_hash).write_bytes(b"DAMAGED")
    path = f"/verify/{file.content.file_hash}"
    assert Client().get(path).json()["replication"]["min"] == 3
    assert Client().get(f"{path}?deep=true").json()["replication"]["min"] == 2
    assert_problem(Client().get(f"{path}?deep=garbage"), 400, "deep")


def test_rebalance_to_a_new_factor_answers_with_the_new_distribution(workers: ClusterUnderTest) -> None:
    file = workers.upload(content_of(3))
    response = rebalance(file.content.file_hash, {"replication_factor": 4})
    assert response.status_code == 200
    body = response.json()
    assert (body["success"], body["file_hash"], body["replication_factor"]) == (True, file.content.file_hash, 4)
    distribution = {chunk_hash: workers.holders(chunk_hash) for chunk_hash, _ in file.content.manifest()}
    assert {h: sorted(nodes) for h, nodes in body["new_distribution"].items()} == distribution
    assert all(len(nodes) == 4 for nodes in distribution.values())


def test_rebalance_without_a_body_keeps_the_factor(workers: ClusterUnderTest) -> None:
    file_hash = workers.upload(b"x", factor=2).content.file_hash
    assert Client().post(f"/rebalance/{file_hash}").json()["replication_factor"] == 2
    assert rebalance(file_hash, {}).json()["replication_factor"] == 2


def test_rebalance_takes_forms_too(workers: ClusterUnderTest) -> None:
    file_hash = workers.upload(b"x").content.file_hash
    assert Client().post(f"/rebalance/{file_hash}", {"replication_factor": "2"}).json()["replication_factor"] == 2
    assert Client().post(f"/rebalance/{file_hash}", {"replication_factor": ""}).json()["replication_factor"] == 2


def test_an_asynchronous_rebalance_answers_202(cluster: ClusterUnderTest) -> None:
    file_hash = cluster.upload(b"x").content.file_hash
    response = rebalance(file_hash, {"replication_factor": 2}, Prefer="respond-async")
    assert response.status_code == 202
    assert response.headers["Location"] == f"/jobs/{response.json()['job']}"
    cluster.maintain()
    assert Client().get(response.headers["Location"]).json()["state"] == "succeeded"


def test_rebalance_and_verify_know_only_the_hashes_there_are(cluster: ClusterUnderTest) -> None:
    for status, file_hash in ((404, "0" * 64), (400, "xyz")):
        assert_problem(rebalance(file_hash, {"replication_factor": 2}), status)
        assert_problem(Client().get(f"/verify/{file_hash}"), status)


def test_a_failed_job_shows_its_error(cluster: ClusterUnderTest) -> None:
    accepted = cluster.accept(b"lost in staging")
    files.discard(accepted.upload.pk)
    cluster.ingest()
    body = Client().get(f"/jobs/{accepted.job.pk}").json()
    assert body["state"] == Job.State.FAILED
    assert body["error"]["title"]
    assert Content.objects.get().state == Content.State.INGESTING


def test_an_unknown_job_is_a_404(db: None) -> None:
    for job_id in ("x", "0" * 32, "00000000-0000-0000-0000-000000000000", "%00", "-"):
        assert_problem(Client().get(f"/jobs/{job_id}"), 404)


def test_health_answers_soon_when_a_volume_hangs(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = cluster.members()[0].lane
    monkeypatch.setattr(lane.volume, "identity", lambda: time.sleep(3))
    begun = time.monotonic()
    assert Client().get("/health").json()["nodes"] == 4
    assert time.monotonic() - begun < 2
