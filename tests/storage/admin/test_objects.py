"""The operator's pages of buckets and objects."""

from __future__ import annotations

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from storage.models import Bucket, Content, Object, Properties
from storage.services import objects
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.objects import make_bucket, put


def test_the_buckets_show_what_they_hold_and_their_limits_are_edited(
    cluster: ClusterUnderTest, operator: Client
) -> None:
    bucket, other = make_bucket("photos"), make_bucket("other")
    put(cluster, bucket, "a", b"x" * 3000)
    put(cluster, bucket, "b", b"x" * 3000)
    rows = operator.get("/admin/storage/bucket/").context["cl"].result_list
    assert [(row.name, row.object_count, row.byte_count) for row in rows] == [("other", 0, 0), ("photos", 2, 6000)]
    page = f"/admin/storage/bucket/{other.pk}/change/"
    assert operator.get(page).status_code == 200
    answer = operator.post(page, {"max_bytes": "1 GiB", "max_objects": "7", "replication_factor": "2", "name": "new"})
    assert answer.status_code == 302, answer.context["errors"]
    other.refresh_from_db()
    assert (other.name, other.max_bytes, other.max_objects, other.factor) == ("other", 1 << 30, 7, 2)
    assert operator.post(page, {"max_bytes": "many"}).status_code == 200
    assert operator.post(f"/admin/storage/bucket/{bucket.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Bucket.objects.count() == 2


def test_objects_are_found_by_the_beginning_of_their_keys(cluster: ClusterUnderTest, operator: Client) -> None:
    one, other = make_bucket("one"), make_bucket("other")
    put(
        cluster,
        one,
        "2026/a.jpg",
        content_of(2),
        Properties("image/jpeg", metadata={"camera": "grün".encode().decode("latin-1")}),
    )
    put(cluster, one, "2027/b.jpg", b"b")
    put(cluster, other, "2026/c.jpg", b"c")

    def found(query: str) -> list[str]:
        return [row.key for row in operator.get("/admin/storage/object/", {"q": query}).context["cl"].result_list]

    assert found("") == ["2026/a.jpg", "2027/b.jpg", "2026/c.jpg"]
    assert found("2026") == found("2026/") == ["2026/a.jpg", "2026/c.jpg"]
    assert found("one/2026") == ["2026/a.jpg"]
    assert found("one/") == ["2026/a.jpg", "2027/b.jpg"]
    assert found("a.jpg") == found("none/2026") == []
    by_bucket = operator.get("/admin/storage/object/", {"bucket__id__exact": str(other.pk)})
    assert [row.key for row in by_bucket.context["cl"].result_list] == ["2026/c.jpg"]
    row = Object.objects.get(key="2026/a.jpg")
    page = operator.get(f"/admin/storage/object/{row.pk}/change/").content.decode()
    for text in ("2026/a.jpg", "one", row.etag, "image/jpeg", "camera: grün", Content.objects.first().file_hash[:12]):  # type: ignore[union-attr]
        assert text in page, text


def test_objects_that_cannot_be_read_are_marked_and_none_is_edited(cluster: ClusterUnderTest, operator: Client) -> None:
    bucket = make_bucket()
    row = put(cluster, bucket, "key", content_of(1))
    assert "not retrievable" not in operator.get("/admin/storage/object/").content.decode()
    Content.objects.update(retrievable=False)
    assert "not retrievable" in operator.get("/admin/storage/object/").content.decode()
    for change in ("change", "delete"):
        answer = operator.post(f"/admin/storage/object/{row.pk}/{change}/", {"post": "yes", "key": "other"})
        assert answer.status_code == 403
    assert objects.find(bucket, "key").key == "key"


def test_the_lists_ask_as_much_for_many_rows_as_for_one(cluster: ClusterUnderTest, operator: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            for path in ("bucket/", "object/", "object/?q=key"):
                assert operator.get(f"/admin/storage/{path}").status_code == 200
        return len(seen)

    bucket = make_bucket()
    put(cluster, bucket, "key", b"x")
    few = queries()
    for number in range(3):
        put(cluster, make_bucket(f"bucket-{number}"), f"key {number}", b"x")
    assert queries() == few
