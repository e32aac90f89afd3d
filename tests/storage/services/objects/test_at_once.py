"""Several changes of one place at the same time: they end as if one came after the other (RACES 47–49)."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.db import transaction

from storage.exceptions import (
    BucketNotEmpty,
    FileQuotaExceeded,
    NoSuchBucket,
    NoSuchMultipart,
    NoSuchObject,
    PreconditionFailed,
)
from storage.models import Bucket, Chunk, Content, Multipart, Object, Part, Properties, nobody
from storage.models.statements import prepared
from storage.services import catalogue, objects
from storage.services.objects import Completed, Condition, multipart
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of
from tests.support.objects import arrive, get, make_bucket, md5, put, put_part, stored
from tests.support.threads import at_once

SAID = Properties()
ROUNDS = 5


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "LEAST_PART", CHUNK_SIZE)


def assert_nothing_dangles() -> None:
    """Every part has its place, every content has a reference, and every chunk is in a manifest or condemned."""
    assert not Part.objects.pending().exists()
    assert not Content.objects.filter(parts=None, files=None).exists()
    assert not Chunk.objects.filter(entries=None, condemned_at=None).exists()
    assert not Chunk.objects.exclude(entries=None).exclude(condemned_at=None).exists()


def test_one_of_many_conditional_puts_wins(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    for round_ in range(ROUNDS):
        bodies = [content_of(2, f"{round_} {number}") for number in range(8)]
        parts = [stored(cluster, bucket, data) for data in bodies]
        key, condition = f"key {round_}", Condition(absent=True)
        results = at_once([partial(objects.put, bucket, key, part, SAID, condition=condition) for part in parts])
        won = [result for result in results if isinstance(result, Object)]
        assert len(won) == 1, results
        assert all(isinstance(result, PreconditionFailed) for result in results if result not in won)
        assert get(bucket, key) in bodies
    assert Content.objects.count() == ROUNDS
    assert_nothing_dangles()


def test_one_of_many_changes_of_the_same_version_wins(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    put(cluster, bucket, "key", b"0")
    parts = [stored(cluster, bucket, content_of(1, str(number))) for number in range(8)]
    condition = Condition(etag=md5(b"0"))
    results = at_once([partial(objects.put, bucket, "key", part, SAID, condition=condition) for part in parts])
    assert sum(isinstance(result, Object) for result in results) == 1, results
    assert_nothing_dangles()


def test_a_change_waits_for_the_one_before_it_and_sees_what_that_has_left(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    put(cluster, bucket, "key", b"1")
    parts = [stored(cluster, bucket, data) for data in (b"2", b"3")]
    condition = Condition(etag=md5(b"1"))
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            objects.put(bucket, "key", parts[0], SAID, condition=condition)
            act = partial(objects.put, bucket, "key", parts[1], SAID, condition=condition)
            second = pool.submit(at_once, [act])
            deadline = time.monotonic() + 10
            while not prepared.rows("SELECT 1 FROM pg_locks WHERE NOT granted", []):
                assert time.monotonic() < deadline and not second.done(), "it does not wait"
        assert second.exception() is None, "two changes of one version have met in the middle"
        assert isinstance(second.result()[0], PreconditionFailed)
    assert get(bucket, "key") == b"2"
    assert_nothing_dangles()


def test_a_reader_sees_one_version_whole(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    sources = {}
    for name, sizes in (("one", (3, 2)), ("two", (2, 4, 2)), ("three", (5,))):
        upload = objects.begin_multipart(bucket, name, Properties(metadata={"is": name}))
        bodies = [content_of(size, f"{name} {number}") for number, size in enumerate(sizes)]
        chosen = [(number, put_part(cluster, upload, number, data).etag) for number, data in enumerate(bodies, 1)]
        objects.complete(bucket, name, upload.upload_id, chosen)
        sources[name] = b"".join(bodies)
    objects.copy(bucket, "one", bucket, "key")
    over = threading.Event()
    seen: set[str] = set()

    def look() -> None:
        while not over.is_set():
            opened = objects.open_object(bucket, "key")
            name = opened.metadata["is"]
            assert opened.size == len(sources[name]) == sum(part.size for part in opened.parts)
            assert b"".join(objects.read(opened)) == sources[name]
            seen.add(name)

    def overwrite() -> None:
        try:
            for _ in range(20):
                for name in sources:
                    objects.copy(bucket, name, bucket, "key")
        finally:
            over.set()

    assert at_once([look, look, overwrite]) == [None] * 3
    assert len(seen) > 1, "the readers saw no overwrite"
    assert_nothing_dangles()


def test_puts_and_deletes_at_once_leave_the_object_whole_or_gone(cluster: ClusterUnderTest) -> None:
    bucket, data = make_bucket(), content_of(2)
    for round_ in range(ROUNDS):
        file = cluster.upload(data)
        parts = [stored(cluster, bucket, data if number % 2 else content_of(2, f"{round_}")) for number in range(4)]
        results = at_once(
            [
                *(partial(objects.put, bucket, "key", part, SAID) for part in parts),
                *(partial(objects.delete, bucket, "key") for _ in range(2)),
                partial(objects.delete_many, bucket, ["other", "key"]),
                partial(catalogue.delete, file),
            ]
        )
        assert sum(isinstance(result, Object) for result in results) == 4, results
        if Object.objects.exists():
            assert get(bucket, "key") in (data, content_of(2, f"{round_}"))
        assert_nothing_dangles()
    objects.delete(bucket, "key")
    assert Content.objects.count() == 0


def test_uploads_of_a_content_whose_last_object_goes(cluster: ClusterUnderTest) -> None:
    """The acceptance of a body and the deletion of the last object with these bytes meet at the content's row."""
    bucket, data = make_bucket(), content_of(2)
    for _ in range(ROUNDS):
        put(cluster, bucket, "old", data)
        accepted = at_once([partial(arrive, bucket, data), partial(objects.delete, bucket, "old")])[0]
        cluster.ingest()
        objects.put(bucket, "new", accepted.part_id, SAID)
        assert get(bucket, "new") == data
        assert_nothing_dangles()


def test_completions_at_once_make_one_object(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    for round_ in range(ROUNDS):
        upload = objects.begin_multipart(bucket, "key", SAID)
        bodies = [content_of(2, f"{round_} {number}") for number in range(2)]
        chosen = [(number, put_part(cluster, upload, number, data).etag) for number, data in enumerate(bodies, 1)]
        acts = [partial(objects.complete, bucket, "key", upload.upload_id, chosen) for _ in range(4)]
        results = at_once([*acts, partial(objects.abort, bucket, "key", upload.upload_id)])
        *completed, aborted = results
        if aborted is None:
            assert all(isinstance(result, NoSuchMultipart) for result in completed), results
        else:
            assert isinstance(aborted, NoSuchMultipart)
            assert isinstance(completed[0], Completed)
            assert len(set(map(repr, completed))) == 1, results
            assert get(bucket, "key") == b"".join(bodies)
        assert_nothing_dangles()


def test_parts_of_one_number_at_once(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    upload = objects.begin_multipart(bucket, "key", SAID)
    parts = [stored(cluster, bucket, content_of(1, str(number))) for number in range(6)]
    results = at_once(
        [
            *(partial(objects.put_part, upload, 1, part) for part in parts),
            partial(objects.complete, bucket, "key", upload.upload_id, [(1, md5(content_of(1, "0")))]),
        ]
    )
    assert all(isinstance(result, Part | NoSuchMultipart) for result in results[:-1]), results
    assert Part.objects.count() == 1
    assert_nothing_dangles()


def test_copies_in_both_directions_and_deletions_in_any_order_do_not_lock_each_other_out(
    cluster: ClusterUnderTest,
) -> None:
    bucket = make_bucket()
    keys = ["a", "b", "c", "d"]
    for round_ in range(ROUNDS * 2):
        for key in keys[:3]:
            put(cluster, bucket, key, content_of(1, key))
        results = at_once(
            [
                partial(objects.copy, bucket, "a", bucket, "b"),
                partial(objects.copy, bucket, "b", bucket, "a"),
                partial(objects.copy, bucket, "c", bucket, "a"),
                partial(objects.copy, bucket, "a", bucket, "d"),
                partial(objects.copy, bucket, "c", bucket, "d"),
                partial(objects.delete_many, bucket, keys[::-1]),
                partial(objects.delete_many, bucket, keys),
            ]
        )
        assert all(result is None or isinstance(result, Object | NoSuchObject) for result in results), (round_, results)
        assert_nothing_dangles()


def test_a_bucket_is_deleted_or_gets_an_object(cluster: ClusterUnderTest) -> None:
    for _ in range(ROUNDS):
        bucket = make_bucket()
        part = stored(cluster, bucket, content_of(1))
        made, deleted, _, _ = at_once(
            [
                partial(objects.put, bucket, "key", part, SAID),
                partial(objects.delete_bucket, bucket),
                partial(objects.begin_multipart, bucket, "key", SAID),
                partial(arrive, bucket, content_of(2)),
            ]
        )
        cluster.ingest()
        if deleted is None:
            assert isinstance(made, NoSuchBucket)
            assert (Bucket.objects.count(), Part.objects.count(), Multipart.objects.count()) == (0, 0, 0)
        else:
            assert isinstance(deleted, BucketNotEmpty)
            assert get(bucket, "key") == content_of(1)
            objects.delete(bucket, "key")
            objects.delete_bucket(bucket)
        assert Content.objects.count() == 0


def test_objects_that_race_for_the_last_slot(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    Bucket.objects.filter(pk=bucket.pk).update(max_objects=1)
    parts = [stored(cluster, bucket, content_of(1, str(number))) for number in range(6)]
    acts = [partial(objects.put, bucket, f"key {number}", part, SAID) for number, part in enumerate(parts)]
    results = at_once(acts)
    assert sum(isinstance(result, Object) for result in results) == 1, results
    assert sum(isinstance(result, FileQuotaExceeded) for result in results) == 5, results
    assert bucket.used.files == 1
    assert nobody().buckets.count() == 1
    assert_nothing_dangles()
