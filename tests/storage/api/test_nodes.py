"""The nodes in the API: each act has its plan, is for admins, and refuses what is not possible."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from storage.exceptions import VolumeUnasked
from storage.models import Activity, Job, Lasting, Node, Sample, Scope
from storage.services import health, history, probe
from storage.volumes import FilesystemVolume
from tests.storage.api.test_schema import assert_described, schema
from tests.support.api import WholeClient as Client
from tests.support.api import assert_problem, workers
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.keys import bearer, keys_on

__all__ = ["keys_on", "workers"]


def act(path: str, status: int, **more: Any) -> Any:
    response = Client().post(path, **more)
    assert response.status_code == status, response.content
    return response


def test_nodes_are_listed_with_their_last_audit_and_census(workers: ClusterUnderTest) -> None:
    workers.upload(content_of(8))
    probe.probe()
    act("/nodes/node_001/audit", 202)
    act("/nodes/node_001/audit?dry_run=false", 202)
    Job.ensure(Job.Kind.CENSUS, "cluster")
    workers.maintain()
    found = {node["node_id"]: node for node in Client().get("/nodes").json()["nodes"]}
    assert list(found) == [f"node_00{number}" for number in range(5)]
    assert sum(node["copies"] for node in found.values()) == 24
    assert sum(node["bytes"] for node in found.values()) == 3 * len(content_of(8))
    node = found["node_001"]
    assert (node["state"], node["audit"]["state"], node["audit"]["found"]["corrupt"]) == ("active", "succeeded", 0)
    assert node["census"]["listed"] is True
    assert node["on_disk_bytes"] == node["bytes"] > 0, "a node of files compresses nothing"
    assert 0 < node["free_bytes"] <= node["disk_bytes"]
    assert found["node_002"]["audit"] is None
    assert Client().get("/nodes/node_001").json() == node
    for unknown in ("node_009", "x%00y"):
        assert assert_problem(Client().get(f"/nodes/{unknown}"), 404)["code"] == "no_such_node"


def test_a_plan_changes_nothing_and_the_act_is_a_job(workers: ClusterUnderTest, monkeypatch: Any) -> None:
    workers.upload(content_of(8))
    monkeypatch.setattr("storage.jobs.wakeups.wake", lambda queue, **_: None)
    jobs = Job.objects.count()
    plan = act("/nodes/node_004/drain?dry_run=true", 200).json()
    on_it = Node.objects.get(node_id="node_004")
    assert plan == {
        "node_id": "node_004",
        "copies": on_it.chunks,
        "bytes": on_it.bytes,
        "to_write": on_it.bytes,
        "orphans": 0,
    }
    assert act("/nodes/node_004/audit?dry_run=true", 200).json()["copies"] == on_it.chunks
    assert (Job.objects.count(), Node.objects.filter(state="draining").count()) == (jobs, 0)
    answer = act("/nodes/node_004/drain", 202)
    job = answer.json()
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    shown = Client().get("/nodes/node_004").json()
    assert (shown["state"], [each["id"] for each in shown["jobs"]]) == ("draining", [job["id"]])
    assert shown["since"] is not None
    workers.maintain()
    assert Client().get(f"/jobs/{job['id']}").json()["state"] == "succeeded"
    assert_problem(Client().get("/nodes/node_004"), 404)
    assert not list((workers.folder("node_004") / "chunks").rglob("[0-9a-f]" * 64))


def test_what_is_not_possible_is_refused_with_the_reason(workers: ClusterUnderTest) -> None:
    workers.upload(content_of(2), factor=5)
    for query in ("", "?dry_run=true"):
        assert (
            "4 active nodes would be left"
            in assert_problem(Client().post(f"/nodes/node_004/drain{query}"), 409)["detail"]
        )
        assert "is there: drain it" in assert_problem(Client().post(f"/nodes/node_004/retire{query}"), 409)["detail"]
        assert assert_problem(Client().post(f"/nodes/node_009/drain{query}"), 404)["code"] == "no_such_node"
    assert_problem(Client().post("/nodes/node_004/drain?dry_run=perhaps"), 400, "dry_run")
    assert_problem(Client().post("/nodes/node_004/drain?dry=true"), 400, "dry")
    assert_problem(Client().get("/nodes/node_004/drain"), 405)
    assert Node.objects.filter(state="active").count() == 5
    workers.take_offline("node_004")
    assert assert_problem(Client().post("/nodes/node_004/audit?dry_run=true"), 503)["code"] == "cluster_unavailable"
    workers.bring_back("node_004")


def test_a_process_without_descriptors_gives_up_no_node(workers: ClusterUnderTest, monkeypatch: Any) -> None:
    def unasked(_: FilesystemVolume) -> None:
        raise VolumeUnasked("Too many open files")

    monkeypatch.setattr(FilesystemVolume, "identity", unasked)
    for query in ("", "?dry_run=true"):
        refused = Client().post(f"/nodes/node_002/retire{query}")
        assert assert_problem(refused, 503)["code"] == "cluster_unavailable"
    assert Node.objects.get(node_id="node_002").state == Node.State.ACTIVE


def test_a_dead_node_is_given_up(workers: ClusterUnderTest) -> None:
    workers.upload(content_of(4))
    workers.take_offline("node_002")
    assert act("/nodes/node_002/retire?dry_run=true", 200).json() == {"node_id": "node_002", "unreadable": 0}
    assert act("/nodes/node_002/retire", 202).json()["kind"] == "repair all"
    assert_problem(Client().post("/nodes/node_002/retire"), 404)


def test_a_node_is_added(workers: ClusterUnderTest, tmp_path: Any) -> None:
    workers.upload(content_of(4))
    plan = act("/nodes?dry_run=true", 200, data={"zone": "rack 2"}, content_type="application/json").json()
    assert plan == {"node_id": "node_005", "url": "node_005", "zone": "rack 2"}
    assert Node.objects.count() == 5
    added = act("/nodes", 201, data={"zone": "rack 2"})
    assert added.headers["Location"] == "/nodes/node_005"
    assert added.json()["state"] == "active"
    assert Job.objects.filter(kind=Job.Kind.REBALANCE_ALL).exists()
    for zone in ("x" * 65, 0, None):
        refused = Client().post("/nodes", {"zone": zone}, content_type="application/json")
        assert_problem(refused, 400, "zone")
    refused = Client().post("/nodes", {"url": f"file://{tmp_path}/disk"})
    assert "keys are off" in assert_problem(refused, 403)["detail"]
    assert not (tmp_path / "disk").exists()


def test_only_admins_see_and_change_nodes(workers: ClusterUnderTest, keys_on: ClusterUnderTest, tmp_path: Any) -> None:
    ann, admin = bearer("ann"), bearer("ann", list(Scope))
    for method, path in (
        ("get", "/nodes"),
        ("get", "/nodes/node_000"),
        ("get", "/history"),
        ("post", "/nodes"),
        ("post", "/nodes/node_000/drain"),
        ("post", "/nodes/node_000/audit"),
        ("post", "/nodes/node_000/retire"),
    ):
        assert_problem(getattr(Client(), method)(path), 401)
        assert_problem(getattr(Client(), method)(path, headers=ann), 403)
    assert not Job.objects.exists()
    added = Client().post("/nodes", {"url": f"file://{tmp_path}/disk"}, headers=admin)
    assert added.status_code == 201, added.content
    assert Client().post("/nodes/node_000/audit", headers=admin).status_code == 202
    assert_problem(Client().post("/nodes", {"url": "/tmp/x"}, headers=admin), 400, "url")


@pytest.mark.parametrize("path", ["/nodes", "/nodes/node_000/drain", f"/jobs/{'0' * 8}/cancel"])
def test_a_page_of_another_site_operates_nothing_while_keys_are_off(workers: ClusterUnderTest, path: str) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert_problem(Client().post(path, headers=headers), 403)
    assert not Activity.objects.exists()


def test_the_answers_are_those_of_the_schema(workers: ClusterUnderTest) -> None:
    document, client = schema(), Client()
    workers.upload(content_of(2))
    job = act("/nodes/node_000/audit", 202)
    assert_described(document, "/nodes/{node_id}/audit", job, "post")
    workers.take_offline("node_003")
    health.watch()
    history.take()
    for path, response, method in (
        ("/health", client.get("/health"), "get"),
        ("/nodes", client.get("/nodes"), "get"),
        ("/nodes", client.post("/nodes?dry_run=true"), "post"),
        ("/nodes", client.post("/nodes"), "post"),
        ("/nodes/{node_id}", client.get("/nodes/node_000"), "get"),
        ("/nodes/{node_id}/audit", client.post("/nodes/node_000/audit?dry_run=1"), "post"),
        ("/nodes/{node_id}/drain", client.post("/nodes/node_000/drain?dry_run=1"), "post"),
        ("/nodes/{node_id}/retire", client.post("/nodes/node_003/retire?dry_run=1"), "post"),
        ("/history", client.get("/history"), "get"),
        ("/activity", client.get("/activity"), "get"),
        ("/links", client.get("/links"), "get"),
        ("/keys", client.get("/keys"), "get"),
        ("/jobs", client.get("/jobs"), "get"),
    ):
        assert_described(document, path, response, method)
    workers.bring_back("node_003")


# -- the beginnings of troubles, and the samples ---------------------------------


def test_troubles_say_since_when(workers: ClusterUnderTest) -> None:
    assert "troubles" not in Client().get("/health").json()
    workers.take_offline("node_001")
    (trouble,) = Client().get("/health").json()["troubles"]
    assert (trouble["name"], trouble["failing"], trouble["since"]) == ("node_001", False, None)
    health.watch()
    first = Client().get("/health").json()["troubles"][0]["since"]
    assert first is not None
    health.watch()
    assert Client().get("/health").json()["troubles"][0]["since"] == first
    workers.bring_back("node_001")
    health.watch()
    assert not Lasting.objects.exists()


def test_a_sample_is_taken_once_a_minute_and_old_ones_are_thinned_out(workers: ClusterUnderTest) -> None:
    workers.upload(content_of(3))
    history.take()
    history.take()
    assert 1 <= Sample.objects.count() <= 2, "the minute may have ended in between"
    figures = Client().get("/history?hours=1").json()["samples"][-1]
    assert figures["stored"] == 3 * len(content_of(3))
    assert figures["disks"] >= figures["free"] > 0
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO storage_sample SELECT at, '{}' FROM generate_series("
            "date_trunc('hour', now()) - interval '32 days', now() - interval '2 hours', interval '1 minute') at "
            "ON CONFLICT DO NOTHING"
        )
        Sample.objects.filter(figures__has_key="stored").delete()
    history.take()
    assert 22 * 60 + 28 * 24 < Sample.objects.count() < 22 * 60 + 31 * 24
    assert_problem(Client().get("/history?hours=721"), 400, "hours")
