"""Objects of one body: put, read, overwrite, delete."""

from __future__ import annotations

import pytest

from storage.exceptions import (
    BucketNotEmpty,
    BucketOwned,
    BucketTaken,
    ClusterUnavailable,
    ContentNotReady,
    Forbidden,
    InvalidKey,
    InvalidRequest,
    NoSuchBucket,
    NoSuchObject,
    PreconditionFailed,
)
from storage.models import Bucket, Chunk, Content, Object, Part, Properties, Upload, nobody
from storage.services import objects
from storage.services.objects import Condition
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of
from tests.support.keys import owner
from tests.support.objects import arrive, get, make_bucket, md5, put, stored

SAID = Properties("text/plain", {"cache-control": "no-store"}, {"colour": "grün"}, {"a": "b"}, "REDUCED_REDUNDANCY")


def references() -> tuple[int, int, int]:
    """The numbers of contents, of parts, and of chunks that are not condemned."""
    return Content.objects.count(), Part.objects.count(), Chunk.objects.filter(condemned_at=None).count()


def test_what_was_put_is_read_and_what_was_said_is_kept(cluster: ClusterUnderTest) -> None:
    bucket, data = make_bucket(), content_of(3)
    put(cluster, bucket, "a/b", data, SAID)
    found = objects.find(bucket, "a/b")
    assert (found.size, found.etag, found.properties) == (len(data), md5(data), SAID)
    opened = objects.open_object(bucket, "a/b")
    assert opened.properties == SAID
    assert opened.modified_at == found.modified_at
    assert [(part.number, part.size, part.etag) for part in opened.parts] == [(1, len(data), md5(data))]
    assert get(bucket, "a/b") == data
    span = range(CHUNK_SIZE - 5, CHUNK_SIZE + 5)
    assert get(bucket, "a/b", span, range(len(data) - 1, len(data))) == data[span.start : span.stop] + data[-1:]
    assert cluster.staged() == []
    assert Upload.objects.count() == 0


def test_an_empty_object(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    put(cluster, bucket, "folder/", b"")
    assert get(bucket, "folder/") == b""
    assert objects.find(bucket, "folder/").etag == md5(b"")
    assert objects.delete(bucket, "folder/")


def test_an_overwrite_frees_what_was_there(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    first = put(cluster, bucket, "key", content_of(2, "old"), SAID)
    second = put(cluster, bucket, "key", content_of(3, "new"))
    assert get(bucket, "key") == content_of(3, "new")
    assert second.properties == Properties()
    assert second.modified_at > first.modified_at
    assert references() == (1, 1, 3)


def test_an_overwrite_with_the_same_bytes_keeps_them(cluster: ClusterUnderTest) -> None:
    bucket, data = make_bucket(), content_of(2)
    put(cluster, bucket, "key", data)
    put(cluster, bucket, "key", data)
    assert get(bucket, "key") == data
    assert references() == (1, 1, 2)


def test_objects_and_files_of_the_same_bytes_go_one_by_one(cluster: ClusterUnderTest) -> None:
    bucket, data = make_bucket(), content_of(2)
    file = cluster.upload(data)
    put(cluster, bucket, "one", data)
    put(cluster, bucket, "two", data)
    assert references() == (1, 2, 2)
    objects.delete(bucket, "one")
    assert cluster.download(file) == data
    file.content.refresh_from_db()
    file.remove()
    assert get(bucket, "two") == data
    objects.delete(bucket, "two")
    assert references() == (0, 0, 0)


def test_a_target_is_the_largest_factor_of_files_and_objects(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    few, many = make_bucket("few"), objects.create_bucket(nobody(), "many", replication_factor=4)
    cluster.upload(data, factor=2)
    put(cluster, few, "key", data)

    def targets() -> set[int]:
        wanted = Chunk.objects.targets(Chunk.objects.values_list("pk", flat=True))
        return set(wanted.values()) | {Content.objects.get().target}

    assert targets() == {3}
    put(cluster, many, "key", data)
    assert targets() == {4}
    objects.delete(many, "key")
    assert targets() == {3}
    objects.delete(few, "key")
    assert targets() == {2}


def test_deleting_is_idempotent_and_frees_the_content(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    put(cluster, bucket, "key", content_of(2))
    assert objects.delete(bucket, "key")
    assert not objects.delete(bucket, "key")
    assert references() == (0, 0, 0)
    assert set(Chunk.objects.values_list("condemned_factor", flat=True)) == {3}
    with pytest.raises(NoSuchObject):
        objects.find(bucket, "key")


def test_many_are_deleted_at_once_and_keys_that_cannot_be_are_passed_over(cluster: ClusterUnderTest) -> None:
    bucket, other = make_bucket(), make_bucket("other")
    data = content_of(1)
    for number in range(5):
        put(cluster, bucket, f"key {number}", data)
    put(cluster, other, "key 1", data)
    objects.delete_many(bucket, ["key 1", "key 1", "key 3", "none", "", "\0", "\udc80", "x" * 1025])
    assert [entry.key for entry in objects.list_objects(bucket).objects] == ["key 0", "key 2", "key 4"]
    assert get(other, "key 1") == data


@pytest.mark.parametrize("key", ["", "x" * 1025, "é" * 513, "a\0b", "\udc80"])
def test_a_text_that_cannot_be_a_key_is_refused_and_its_body_dropped(cluster: ClusterUnderTest, key: str) -> None:
    bucket = make_bucket()
    part_id = stored(cluster, bucket, content_of(1))
    with pytest.raises(InvalidKey):
        objects.put(bucket, key, part_id, Properties())
    assert references() == (0, 0, 0)
    for act in (objects.find, objects.open_object, objects.delete):
        with pytest.raises(InvalidKey):
            act(bucket, key)


def test_the_longest_key(cluster: ClusterUnderTest) -> None:
    bucket, key = make_bucket(), "é" * 512
    put(cluster, bucket, key, b"x")
    assert get(bucket, key) == b"x"


def test_properties_that_postgresql_does_not_keep_are_refused(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    for said in (Properties("\0"), Properties(metadata={"a": "\udc80"}), Properties(tags={"\0": "b"})):
        with pytest.raises(InvalidRequest):
            put(cluster, bucket, "key", b"x", said)
    assert references() == (0, 0, 0)


# -- conditions --------------------------------------------------------------


def test_conditional_writes(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    with pytest.raises(NoSuchObject):
        put(cluster, bucket, "key", b"1", condition=Condition(etag="*"))
    assert Object.objects.count() == 0
    put(cluster, bucket, "key", b"1", condition=Condition(absent=True))
    with pytest.raises(PreconditionFailed):
        put(cluster, bucket, "key", b"2", condition=Condition(absent=True))
    with pytest.raises(PreconditionFailed):
        put(cluster, bucket, "key", b"2", condition=Condition(etag=md5(b"0")))
    assert get(bucket, "key") == b"1"
    put(cluster, bucket, "key", b"2", condition=Condition(etag=md5(b"1")))
    put(cluster, bucket, "key", b"3", condition=Condition(etag="*"))
    with pytest.raises(PreconditionFailed):
        put(cluster, bucket, "key", b"4", condition=Condition(unlike=md5(b"3")))
    put(cluster, bucket, "key", b"3", condition=Condition(unlike=md5(b"4")))
    put(cluster, bucket, "new", b"", condition=Condition(unlike=md5(b"4")))
    objects.delete(bucket, "new")
    assert get(bucket, "key") == b"3"
    with pytest.raises(PreconditionFailed):
        objects.delete(bucket, "key", condition=Condition(etag=md5(b"2")))
    objects.delete(bucket, "key", condition=Condition(etag=md5(b"3")))
    assert references() == (0, 0, 0)


# -- bodies without a place --------------------------------------------------


def test_a_body_that_is_not_stored_yet_gets_no_place(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    accepted = arrive(bucket, content_of(2), "key")
    with pytest.raises(ContentNotReady):
        objects.put(bucket, "key", accepted.part_id, Properties())
    assert references()[:2] == (0, 0)
    assert (Upload.objects.count(), cluster.staged()) == (0, [])
    cluster.ingest()


def test_a_part_has_one_place(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    part_id = stored(cluster, bucket, b"x")
    objects.put(bucket, "key", part_id, Properties())
    with pytest.raises(ClusterUnavailable):
        objects.put(bucket, "other", part_id, Properties())
    objects.discard(part_id)
    assert Part.objects.count() == 1, "a part of an object was dropped"
    assert get(bucket, "key") == b"x"
    assert Object.objects.count() == 1


# -- buckets -----------------------------------------------------------------


def test_buckets_have_one_owner_and_one_name(cluster: ClusterUnderTest) -> None:
    ann, bob = owner("ann"), owner("bob")
    bucket = objects.create_bucket(ann, "b")
    objects.create_bucket(ann, "a", replication_factor=2)
    with pytest.raises(BucketOwned):
        objects.create_bucket(ann, "b")
    with pytest.raises(BucketTaken):
        objects.create_bucket(bob, "b")
    with pytest.raises(Forbidden):
        objects.find_bucket(bob, "b")
    with pytest.raises(NoSuchBucket):
        objects.find_bucket(ann, "c")
    assert [(found.name, found.factor) for found in objects.list_buckets(ann)] == [("a", 2), ("b", 3)]
    assert objects.list_buckets(bob) == []
    objects.delete_bucket(bucket)
    with pytest.raises(NoSuchBucket):
        objects.delete_bucket(bucket)
    objects.create_bucket(bob, "b")


def test_a_bucket_with_objects_stays_and_one_with_parts_takes_them_along(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    put(cluster, bucket, "key", content_of(1))
    with pytest.raises(BucketNotEmpty):
        objects.delete_bucket(bucket)
    objects.delete(bucket, "key")
    arrive(bucket, content_of(2), "key")
    late = arrive(bucket, content_of(3), "late")
    objects.delete_bucket(bucket)
    assert (Bucket.objects.count(), Part.objects.count(), Upload.objects.count()) == (0, 0, 0)
    cluster.ingest()
    assert (Content.objects.count(), cluster.staged()) == (0, [])
    with pytest.raises(NoSuchBucket):
        objects.put(bucket, "late", late.part_id, Properties())


def test_a_body_for_a_bucket_that_is_deleted_while_it_arrives_is_refused(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    with pytest.raises(NoSuchBucket):
        arrive(bucket, content_of(100), "key", then=lambda: objects.delete_bucket(bucket))
    assert references()[:2] == (0, 0)
    assert (Upload.objects.count(), cluster.staged()) == (0, [])
