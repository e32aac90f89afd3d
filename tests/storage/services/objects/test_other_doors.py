"""Contents that only objects refer to, as the other doors and the maintenance see them."""

from __future__ import annotations

import hashlib
import json

import pytest
from django.test import Client

from storage.models import Chunk, Content, Job, Part, Properties
from storage.services import objects, reclaim, statistics
from storage.services.objects import multipart
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.keys import owner
from tests.support.objects import get, make_bucket, md5, put, put_part

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


# -- the objects of a bucket among the files ---------------------------------


def test_a_bucket_is_listed_by_key_page_by_page(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "LEAST_PART", 1)
    bucket = make_bucket("photos")
    put(cluster, bucket, "2026/a", DATA, Properties("image/png"))
    put(cluster, bucket, "2027/b", b"")
    upload = objects.begin_multipart(bucket, "2026/c", Properties())
    chosen = [(number, put_part(cluster, upload, number, content_of(number)).etag) for number in (1, 2)]
    objects.complete(bucket, "2026/c", upload.upload_id, chosen)
    put(cluster, make_bucket("other"), "2026/d", DATA)
    cluster.upload(DATA)

    first = Client().get("/files?bucket=photos&limit=2").json()
    assert (first["total_files"], [entry["file_name"] for entry in first["files"]]) == (3, ["2026/a", "2026/c"])
    second = Client().get(first["next"]).json()
    assert ([entry["file_name"] for entry in second["files"]], second["next"]) == (["2027/b"], None)
    one, several = first["files"]
    assert (one["file_hash"], one["parts"], one["chunks"]) == (hashlib.sha256(DATA).hexdigest(), 1, 3)
    assert (one["etag"], one["content_type"], one["file_size"]) == (md5(DATA), "image/png", len(DATA))
    assert (several["file_hash"], several["parts"], several["chunks"]) == (None, 2, 3)
    assert (several["retrievable"], several["min_replication"], several["avg_replication"]) == (True, 3, 3.0)
    assert (several["state"], several["health_exact"]) == ("ready", True)
    found = Client().get("/files", {"bucket": "photos", "prefix": "2027/"}).json()
    assert [entry["file_name"] for entry in found["files"]] == ["2027/b"]
    assert len(Client().get("/files").json()["files"]) == 1


@pytest.mark.parametrize("query", ["sort=file_size", "name=a", "prefix=%00", "cursor=!", "limit=0", "bucket=%00"])
def test_what_a_list_of_a_bucket_does_not_know_is_refused(cluster: ClusterUnderTest, query: str) -> None:
    make_bucket("photos")
    path = f"/files?{query}" if query.startswith("bucket") else f"/files?bucket=photos&{query}"
    assert Client().get(path).status_code == 400


def test_a_bucket_of_another_owner_is_as_one_that_is_not_there(cluster: ClusterUnderTest) -> None:
    make_bucket("anns", owner("ann"))
    for name in ("anns", "none", ""):
        answer = Client().get("/files", {"bucket": name})
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_bucket")
