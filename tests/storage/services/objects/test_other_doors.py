"""Contents that only objects refer to, as the other doors and the maintenance see them."""

from __future__ import annotations

import json

from django.test import Client

from storage.models import Chunk, Content, Job, Part
from storage.services import objects, reclaim, statistics
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.keys import owner
from tests.support.objects import get, make_bucket, put

DATA = content_of(3)


def test_verify_and_rebalance_by_hash(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    put(cluster, bucket, "a/key", DATA)
    file_hash = Content.objects.get().file_hash
    report = Client().get(f"/verify/{file_hash}?deep=true").json()
    assert (report["file_name"], report["replication_factor"], report["retrievable"]) == ("a/key", 3, True)
    assert [chunk["replicas"] for chunk in report["chunks"]] == [3, 3, 3]
    answer = Client().post(
        f"/rebalance/{file_hash}",
        json.dumps({"replication_factor": 5}),
        content_type="application/json",
        headers={"Prefer": "respond-async"},
    )
    assert answer.status_code == 202, answer.json()
    cluster.maintain()
    assert Part.objects.get().replication_factor == Content.objects.get().target == 5
    assert {len(cluster.holders(chunk.hash)) for chunk in Chunk.objects.all()} == {5}
    assert Job.objects.filter(kind=Job.Kind.REBALANCE, state=Job.State.SUCCEEDED).count() == 1
    assert Client().get(f"/verify/{'0' * 64}").status_code == 404


def test_a_new_factor_of_one_owner_leaves_the_others(cluster: ClusterUnderTest) -> None:
    put(cluster, make_bucket("anns", owner("ann")), "key", DATA)
    put(cluster, make_bucket(), "key", DATA)
    file_hash = Content.objects.get().file_hash
    Client().post(f"/rebalance/{file_hash}", {"replication_factor": "1"}, headers={"Prefer": "respond-async"})
    cluster.maintain()
    assert Content.objects.get().target == 3
    assert {len(cluster.holders(chunk.hash)) for chunk in Chunk.objects.all()} == {3}


def test_a_lost_copy_of_an_object_is_made_again_and_reclaim_takes_nothing_that_an_object_has(
    cluster: ClusterUnderTest,
) -> None:
    bucket = make_bucket()
    put(cluster, bucket, "key", DATA)
    put(cluster, bucket, "gone", content_of(2, "gone"))
    objects.delete(bucket, "gone")
    chunk_hash = Chunk.objects.filter(condemned_at=None).order_by("hash").values_list("hash", flat=True)[0]
    cluster.replica_path(cluster.holders(chunk_hash)[0], chunk_hash).unlink()
    Job.ensure(Job.Kind.REPAIR_ALL, "all")
    cluster.maintain()
    while reclaim.reclaim(0.0) != reclaim.Outcome():
        pass
    assert Chunk.objects.count() == 3, "reclaim took what an object has, or left what none has"
    copies = {len(cluster.holders(chunk.hash)) for chunk in Chunk.objects.all()}
    assert copies == {3}, "a copy that an object needs was not made again"
    assert get(bucket, "key") == DATA


def test_statistics_count_objects(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    put(cluster, bucket, "a", DATA)
    put(cluster, bucket, "b", DATA)
    found = statistics.gather()
    assert (found.files, found.objects) == (0, 2)
    assert Client().get("/status").json()["objects_stored"] == 2
