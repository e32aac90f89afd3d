"""Multipart uploads: parts that become one object without being read again."""

from __future__ import annotations

import gc
import hashlib
from datetime import timedelta

import pytest

from storage.exceptions import (
    ClusterUnavailable,
    InvalidPart,
    InvalidPartOrder,
    InvalidRequest,
    NoSuchMultipart,
    NoSuchObject,
    PartTooSmall,
    PreconditionFailed,
)
from storage.models import Bucket, Chunk, Content, Multipart, Object, OpenContent, OpenPart, Part, Properties, Upload
from storage.models.clock import Clock
from storage.models.described import REDUCED
from storage.services import objects, sweep
from storage.services.objects import Condition, multipart
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of
from tests.support.objects import arrive, get, make_bucket, md5, put, put_part, stored

SAID = Properties("text/plain", metadata={"a": "b"})
BODIES = [content_of(3, "1"), content_of(2, "2"), content_of(1, "3")]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "LEAST_PART", CHUNK_SIZE)


def begin(bucket: Bucket, key: str = "key") -> Multipart:
    return objects.begin_multipart(bucket, key, SAID)


def fill(cluster: ClusterUnderTest, upload: Multipart, bodies: list[bytes] = BODIES) -> list[tuple[int, str]]:
    parts = [put_part(cluster, upload, number, data) for number, data in enumerate(bodies, 1)]
    return [(part.number, part.etag) for part in parts]


def etag_of(bodies: list[bytes]) -> str:
    joined = b"".join(hashlib.md5(data, usedforsecurity=False).digest() for data in bodies)
    return f"{md5(joined)}-{len(bodies)}"


def assert_empty() -> None:
    assert (Content.objects.count(), Part.objects.count(), Upload.objects.count()) == (0, 0, 0)
    assert not Chunk.objects.filter(condemned_at=None).exists()


def test_parts_become_one_object(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    upload = begin(bucket)
    chosen = fill(cluster, upload)
    with pytest.raises(NoSuchObject):
        objects.find(bucket, "key")
    completed = objects.complete(bucket, "key", upload.upload_id, chosen)
    whole = b"".join(BODIES)
    assert (completed.size, completed.etag) == (len(whole), etag_of(BODIES))
    found = objects.find(bucket, "key")
    assert (found.size, found.etag, found.properties) == (len(whole), completed.etag, SAID)
    assert get(bucket, "key") == whole
    opened = objects.open_object(bucket, "key")
    assert [(part.number, part.start, part.size) for part in opened.parts] == [
        (1, 0, len(BODIES[0])),
        (2, len(BODIES[0]), len(BODIES[1])),
        (3, len(BODIES[0]) + len(BODIES[1]), len(BODIES[2])),
    ]
    assert Content.objects.count() == 3


def test_ranges_across_parts(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    upload = begin(bucket)
    objects.complete(bucket, "key", upload.upload_id, fill(cluster, upload))
    whole = b"".join(BODIES)
    edge = len(BODIES[0])
    ranges = [range(5), range(edge - 3, edge + 3), range(edge + 10, edge + 11), range(len(whole) - 4, len(whole))]
    assert get(bucket, "key", *ranges) == b"".join(whole[one.start : one.stop] for one in ranges)


@pytest.mark.parametrize("change", ["overwritten", "deleted"])
def test_a_download_goes_on_when_its_object_is_gone(
    cluster: ClusterUnderTest, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.models.statements.open_content.HEAD", 2)
    bucket = make_bucket()
    upload = begin(bucket)
    objects.complete(bucket, "key", upload.upload_id, fill(cluster, upload))
    whole = b"".join(BODIES)
    opened = objects.open_object(bucket, "key")
    span = range(CHUNK_SIZE * 2 + 10, len(whole))
    every, some = objects.read(opened), objects.read(opened, [span])
    first = next(every), next(some)
    if change == "deleted":
        objects.delete(bucket, "key")
    else:
        put(cluster, bucket, "key", b"new")
    assert Content.objects.count() == (change == "overwritten")
    assert first[0] + b"".join(every) == whole
    assert first[1] + b"".join(some) == whole[span.start :]


def test_completing_again_gives_the_same_answer_and_touches_nothing(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    upload = begin(bucket)
    chosen = fill(cluster, upload)
    first = objects.complete(bucket, "key", upload.upload_id, chosen)
    put(cluster, bucket, "key", b"newer")
    assert objects.complete(bucket, "key", upload.upload_id, chosen) == first
    assert get(bucket, "key") == b"newer"
    for act in (objects.find_multipart, objects.abort):
        with pytest.raises(NoSuchMultipart):
            act(bucket, "key", upload.upload_id)
    with pytest.raises(NoSuchMultipart):
        put_part(cluster, upload, 4, b"late")
    assert Part.objects.count() == 1
    objects.delete(bucket, "key")
    assert_empty()


def test_parts_that_were_not_chosen_go(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    upload = begin(bucket)
    chosen = fill(cluster, upload)
    objects.complete(bucket, "key", upload.upload_id, [chosen[0], chosen[2]])
    assert get(bucket, "key") == BODIES[0] + BODIES[2]
    assert [part.number for part in objects.open_object(bucket, "key").parts] == [1, 2]
    assert Content.objects.count() == 2


def test_a_part_is_replaced(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    upload = begin(bucket)
    put_part(cluster, upload, 7, content_of(2, "old"))
    again = put_part(cluster, upload, 7, content_of(2, "new"))
    parts, truncated = objects.list_parts(upload)
    assert ([(part.number, part.etag) for part in parts], truncated) == ([(7, again.etag)], False)
    assert Content.objects.count() == 1
    with pytest.raises(InvalidPart):
        objects.complete(bucket, "key", upload.upload_id, [(7, md5(content_of(2, "old")))])


def test_completions_that_are_refused_change_nothing(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    put(cluster, bucket, "key", b"before")
    upload = begin(bucket)
    one, two, three = fill(cluster, upload, [BODIES[0], b"small", BODIES[2]])

    def refused(error: type[Exception], *chosen: tuple[int, str], condition: Condition | None = None) -> None:
        with pytest.raises(error):
            objects.complete(bucket, "key", upload.upload_id, chosen, condition=condition or Condition())

    refused(InvalidRequest)
    refused(InvalidPart, one, (9, two[1]))
    refused(InvalidPart, one, (3, two[1]))
    refused(InvalidPartOrder, three, one)
    refused(InvalidPartOrder, one, one)
    refused(PartTooSmall, one, two, three)
    refused(PreconditionFailed, one, condition=Condition(absent=True))

    def broken(*_: object) -> dict[str, str]:
        raise InvalidPart("the checksum is wrong")

    with pytest.raises(InvalidPart):
        objects.complete(bucket, "key", upload.upload_id, [one], seal=broken)
    with pytest.raises(NoSuchMultipart):
        objects.complete(bucket, "other", upload.upload_id, [one])
    with pytest.raises(NoSuchMultipart):
        objects.complete(make_bucket("other"), "key", upload.upload_id, [one])
    with pytest.raises(NoSuchMultipart):
        objects.complete(bucket, "key", "no id", [one])
    assert get(bucket, "key") == b"before"
    assert len(objects.list_parts(upload)[0]) == 3
    objects.complete(bucket, "key", upload.upload_id, [one, two])
    assert get(bucket, "key") == BODIES[0] + b"small"


def test_the_door_seals_the_checksums(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    upload = objects.begin_multipart(bucket, "key", SAID, checksums={"algorithm": "CRC32"})
    chosen = fill(cluster, upload)
    seen: list[object] = []

    def seal(of: Multipart, parts: object) -> dict[str, str]:
        seen.extend([of.checksums, [part.number for part in parts]])  # type: ignore[attr-defined]
        return {"CRC32": "AAAA"}

    completed = objects.complete(bucket, "key", upload.upload_id, chosen, seal=seal)
    assert seen == [{"algorithm": "CRC32"}, [1, 2, 3]]
    assert completed.checksums == objects.find(bucket, "key").checksums == {"CRC32": "AAAA"}


def test_an_aborted_upload_leaves_nothing(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    upload = begin(bucket)
    fill(cluster, upload)
    part_id = stored(cluster, bucket, content_of(2, "under way"))
    objects.abort(bucket, "key", upload.upload_id)
    with pytest.raises(NoSuchMultipart):
        objects.put_part(upload, 4, part_id)
    with pytest.raises(NoSuchMultipart):
        objects.abort(bucket, "key", upload.upload_id)
    assert_empty()
    assert Multipart.objects.count() == 0


def test_numbers_of_parts(cluster: ClusterUnderTest) -> None:
    upload = begin(make_bucket())
    for number in (0, 10_001, -1):
        with pytest.raises(InvalidRequest):
            put_part(cluster, upload, number, b"x")
    put_part(cluster, upload, 10_000, b"x")
    put_part(cluster, upload, 1, b"y")
    parts, truncated = objects.list_parts(upload, limit=1)
    assert ([part.number for part in parts], truncated) == ([1], True)
    parts, truncated = objects.list_parts(upload, after=1, limit=1)
    assert ([part.number for part in parts], truncated) == ([10_000], False)
    assert Part.objects.count() == 2


# -- expiry ------------------------------------------------------------------


def expire(upload: Multipart, monkeypatch: pytest.MonkeyPatch) -> None:
    Multipart.objects.filter(pk=upload.pk).update(expires_at=Clock() - timedelta(seconds=1))
    sweep.sweep()
    assert Multipart.objects.filter(pk=upload.pk).exists(), "the clock may have jumped ahead"
    monkeypatch.setattr("storage.jobs.stillness.monotonic", lambda: 1e12)
    sweep.sweep()


def test_an_upload_that_nobody_completes_expires(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = make_bucket()
    upload, other = begin(bucket), begin(bucket, "other")
    fill(cluster, upload)
    expire(upload, monkeypatch)
    assert list(Multipart.objects.all()) == [other]
    assert_empty()


def test_a_completed_upload_expires_and_its_object_stays(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = make_bucket()
    upload = begin(bucket)
    chosen = fill(cluster, upload)
    objects.complete(bucket, "key", upload.upload_id, chosen)
    expire(upload, monkeypatch)
    assert get(bucket, "key") == b"".join(BODIES)
    with pytest.raises(NoSuchMultipart):
        objects.complete(bucket, "key", upload.upload_id, chosen)


def test_a_part_puts_the_expiry_off(cluster: ClusterUnderTest) -> None:
    upload = begin(make_bucket())
    Multipart.objects.update(expires_at=Clock() + timedelta(seconds=60))
    put_part(cluster, upload, 1, b"x")
    assert Multipart.objects.filter(expires_at__gt=Clock() + timedelta(days=6)).exists()


def test_a_body_whose_request_is_gone_is_dropped(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = make_bucket()
    kept = arrive(bucket, content_of(2, "under ingest"), "key")
    monkeypatch.setattr("storage.jobs.stillness.monotonic", lambda: 0.0)
    sweep.sweep()
    gone = stored(cluster, bucket, content_of(2, "stored"))
    under_ingest = arrive(bucket, content_of(2, "again"), "key")
    sweep.sweep()
    assert Part.objects.count() == 3
    monkeypatch.setattr("storage.jobs.stillness.monotonic", lambda: 1e9)
    sweep.sweep()
    assert set(Part.objects.values_list("pk", flat=True)) == {under_ingest.part_id}
    assert not Part.objects.filter(pk__in=[gone, kept.part_id]).exists()
    with pytest.raises(ClusterUnavailable):
        objects.put(bucket, "key", gone, Properties())


def test_a_download_holds_only_the_contents_that_it_needs(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    upload = begin(bucket)
    objects.complete(bucket, "key", upload.upload_id, fill(cluster, upload))
    span = objects.open_object(bucket, "key").parts[1].span
    pieces = objects.read(objects.open_object(bucket, "key"), [span])
    gc.collect()
    assert [type(one) for one in gc.get_objects() if isinstance(one, OpenContent | OpenPart)] == [OpenContent]
    assert b"".join(pieces) == BODIES[1]


# -- copies ------------------------------------------------------------------


def test_a_copy_moves_no_bytes(cluster: ClusterUnderTest) -> None:
    bucket, other = make_bucket(), make_bucket("other")
    upload = begin(bucket)
    objects.complete(bucket, "key", upload.upload_id, fill(cluster, upload))
    source = objects.find(bucket, "key")
    copy = objects.copy(bucket, "key", other, "copy")
    assert (copy.etag, copy.size, copy.properties) == (source.etag, source.size, SAID)
    replaced = objects.copy(bucket, "key", bucket, "replaced", change=lambda _: Properties("image/png"))
    assert replaced.properties == Properties("image/png")
    assert Content.objects.count() == 3
    objects.delete(bucket, "key")
    assert get(other, "copy") == get(bucket, "replaced") == b"".join(BODIES)
    objects.delete_many(bucket, ["replaced"])
    objects.delete_many(other, ["copy"])
    assert_empty()


def test_a_copy_onto_itself_changes_what_is_said(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    before = put(cluster, bucket, "key", content_of(2), SAID)
    after = objects.copy(bucket, "key", bucket, "key", change=lambda _: Properties("image/png"))
    assert (after.pk, after.properties) == (before.pk, Properties("image/png"))
    assert after.modified_at > before.modified_at
    assert get(bucket, "key") == content_of(2)


def test_a_copy_has_the_replicas_that_its_storage_class_wants(cluster: ClusterUnderTest) -> None:
    bucket, reduced = make_bucket(), Properties(storage_class=REDUCED)
    put(cluster, bucket, "key", content_of(2))
    objects.copy(bucket, "key", bucket, "copy", change=lambda _: reduced)
    objects.copy(bucket, "copy", bucket, "again")
    assert set(Part.objects.filter(object__key__in=("copy", "again")).values_list("replication_factor", flat=True)) == {
        2
    }
    upload = objects.begin_multipart(bucket, "parts", reduced)
    source = objects.open_object(bucket, "key")
    assert (part := objects.copy_part(upload, 1, source, source.parts[0].span)) and part.replication_factor == 2
    objects.delete(bucket, "key")
    assert Content.objects.get().target == 2
    objects.copy(bucket, "copy", bucket, "copy", change=lambda _: Properties())
    assert Content.objects.get().target == 3, "the object says STANDARD and has one replica fewer"


def test_a_copy_over_another_object_frees_that_one(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    put(cluster, bucket, "a", content_of(2, "a"))
    put(cluster, bucket, "b", content_of(2, "b"))
    put(cluster, bucket, "same", content_of(2, "a"))
    objects.copy(bucket, "a", bucket, "b")
    objects.copy(bucket, "a", bucket, "same")
    assert get(bucket, "b") == get(bucket, "same") == content_of(2, "a")
    assert Content.objects.count() == 1


def test_copies_that_are_refused(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    put(cluster, bucket, "key", b"x")
    with pytest.raises(NoSuchObject):
        objects.copy(bucket, "none", bucket, "copy")
    with pytest.raises(PreconditionFailed):
        objects.copy(bucket, "key", bucket, "key", condition=Condition(absent=True))

    def permit(source: Object) -> None:
        assert source.key == "key"
        raise PreconditionFailed("not this one")

    with pytest.raises(PreconditionFailed):
        objects.copy(bucket, "key", bucket, "copy", permit=permit)
    assert Object.objects.count() == Part.objects.count() == 1


def test_a_part_is_copied_without_its_bytes_if_the_range_is_a_part(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    upload = begin(bucket)
    objects.complete(bucket, "key", upload.upload_id, fill(cluster, upload))
    source = objects.open_object(bucket, "key")
    copied = begin(bucket, "copy")
    span = source.parts[1].span
    assert objects.copy_part(copied, 1, source, range(span.start, span.stop - 1)) is None
    assert objects.copy_part(copied, 1, source, range(source.size)) is None
    part = objects.copy_part(copied, 1, source, span)
    assert part is not None
    assert (part.number, part.etag, part.size) == (1, md5(BODIES[1]), len(BODIES[1]))
    assert objects.copy_part(copied, 1, source, source.parts[0].span) is not None
    objects.complete(bucket, "copy", copied.upload_id, [(1, md5(BODIES[0]))])
    objects.delete(bucket, "key")
    assert get(bucket, "copy") == BODIES[0]
    with pytest.raises(NoSuchObject):
        objects.copy_part(begin(bucket), 1, source, span)
    assert Content.objects.count() == 1
