"""Quotas of owners and of buckets: what objects, parts and copies cost (RACES 50)."""

from __future__ import annotations

from functools import partial

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db.models import Sum

from storage.accounts import quotas
from storage.exceptions import ByteQuotaExceeded, FileQuotaExceeded
from storage.models import AcceptedPart, Bucket, Content, File, Object, Part, Properties, Tally, Usage, nobody, tally
from storage.services import objects
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import owner
from tests.support.objects import arrive, get, make_bucket, put, put_part, stored
from tests.support.threads import at_once


def require_recount(user: User) -> Usage:
    """Check that the usage equals the sum over the rows, and return the usage."""
    files, parts = File.objects.filter(owner=user), Part.objects.filter(bucket__owner=user)
    counted = Usage(
        files.count() + Object.objects.filter(bucket__owner=user).count(),
        sum(rows.aggregate(size=Sum("size"))["size"] or 0 for rows in (files, parts)),
    )
    assert Usage.of(user.pk) == Usage.by_owner().get(user.pk, Usage(0, 0)) == counted
    for bucket in Bucket.objects.filter(owner=user):
        of_bucket = Part.objects.filter(bucket=bucket).aggregate(size=Sum("size"))["size"] or 0
        assert bucket.used == Usage(Object.objects.filter(bucket=bucket).count(), of_bucket)
    return counted


def limited(name: str, max_bytes: int | None = None, max_files: int | None = None) -> tuple[User, Bucket]:
    user = owner(name)
    quotas.limit(user, max_bytes=max_bytes, max_files=max_files)
    return user, make_bucket(name, user)


def test_objects_and_files_share_a_quota(cluster: ClusterUnderTest) -> None:
    ann, bucket = limited("ann", max_bytes=1000)
    put(cluster, bucket, "a", b"x" * 600)
    with pytest.raises(ByteQuotaExceeded, match="quota is 1000 bytes, 600 are used, and 401 more were asked for"):
        arrive(bucket, b"y" * 401, "b")
    with pytest.raises(ByteQuotaExceeded):
        arrive(bucket, b"y" * 401, "b", declared=0)
    put(cluster, bucket, "b", b"y" * 400)
    assert require_recount(ann) == Usage(2, 1000)
    objects.delete_many(bucket, ["a", "b"])
    assert require_recount(ann) == Usage(0, 0)
    assert Content.objects.count() == 0


def test_an_overwrite_costs_the_difference(cluster: ClusterUnderTest) -> None:
    ann, bucket = limited("ann", max_bytes=1000, max_files=1)
    put(cluster, bucket, "a", b"x" * 700)
    put(cluster, bucket, "a", b"y" * 1000)
    assert require_recount(ann) == Usage(1, 1000)
    with pytest.raises(ByteQuotaExceeded):
        arrive(bucket, b"z" * 1001, "a")
    under_way = arrive(bucket, b"z" * 900, "a")
    with pytest.raises(ByteQuotaExceeded):  # Both bodies overwrite one object: only one may use its room.
        arrive(bucket, b"w" * 900, "a")
    objects.discard(under_way.part_id)
    assert require_recount(ann) == Usage(1, 1000)


def test_as_many_objects_as_the_quota_allows(cluster: ClusterUnderTest) -> None:
    ann, bucket = limited("ann", max_files=2)
    late = stored(cluster, bucket, b"late", "late")
    put(cluster, bucket, "a", b"")
    put(cluster, bucket, "b", b"")
    with pytest.raises(FileQuotaExceeded):
        arrive(bucket, b"c", "c")
    with pytest.raises(FileQuotaExceeded):
        objects.put(bucket, "late", late, Properties())
    with pytest.raises(FileQuotaExceeded):
        objects.copy(bucket, "a", bucket, "c")
    objects.copy(bucket, "a", bucket, "b")
    upload = objects.begin_multipart(bucket, "c", Properties())
    part = put_part(cluster, upload, 1, b"c")
    with pytest.raises(FileQuotaExceeded):
        objects.complete(bucket, "c", upload.upload_id, [(1, part.etag)])
    objects.delete(bucket, "b")
    objects.complete(bucket, "c", upload.upload_id, [(1, part.etag)])
    assert get(bucket, "c") == b"c"
    assert require_recount(ann).files == 2


def test_parts_cost_their_bytes_until_they_are_dropped(cluster: ClusterUnderTest) -> None:
    ann, bucket = limited("ann", max_bytes=1000)
    upload = objects.begin_multipart(bucket, "a", Properties())
    put_part(cluster, upload, 1, b"x" * 800)
    assert require_recount(ann) == Usage(0, 800)
    with pytest.raises(ByteQuotaExceeded):
        arrive(bucket, b"y" * 300)
    objects.abort(bucket, "a", upload.upload_id)
    assert require_recount(ann) == Usage(0, 0)


def test_copies_cost_as_much_as_new_objects(cluster: ClusterUnderTest) -> None:
    ann, bucket = limited("ann", max_bytes=1000)
    put(cluster, bucket, "a", b"x" * 400)
    objects.copy(bucket, "a", bucket, "b")
    with pytest.raises(ByteQuotaExceeded):
        objects.copy(bucket, "a", bucket, "c")
    upload = objects.begin_multipart(bucket, "a", Properties())
    with pytest.raises(ByteQuotaExceeded):
        objects.copy_part(upload, 1, objects.open_object(bucket, "a"), range(400))
    objects.copy(bucket, "a", bucket, "b")
    assert require_recount(ann) == Usage(2, 800)
    assert Part.objects.count() == 2


def test_a_bucket_has_a_quota_of_its_own(cluster: ClusterUnderTest) -> None:
    bucket, other = make_bucket(), make_bucket("other")
    Bucket.objects.filter(pk=bucket.pk).update(max_bytes=1000, max_objects=2)
    put(cluster, other, "a", b"x" * 5000)
    put(cluster, bucket, "a", b"x" * 900)
    with pytest.raises(ByteQuotaExceeded):
        arrive(bucket, b"x" * 101, "b")
    with pytest.raises(ByteQuotaExceeded):
        objects.copy(bucket, "a", bucket, "b")
    with pytest.raises(ByteQuotaExceeded):
        objects.copy(other, "a", bucket, "a")
    put(cluster, bucket, "b", b"x" * 100)
    with pytest.raises(FileQuotaExceeded):
        arrive(bucket, b"", "c")
    assert require_recount(nobody()) == Usage(3, 6000)


def test_parts_that_race_for_the_last_bytes(cluster: ClusterUnderTest) -> None:
    ann, bucket = limited("ann", max_bytes=1000)
    results = at_once([partial(arrive, bucket, bytes([number]) * 400, f"key {number}") for number in range(8)])
    assert sum(isinstance(result, AcceptedPart) for result in results) == 2, results
    assert sum(isinstance(result, ByteQuotaExceeded) for result in results) == 6, results
    assert require_recount(ann) == Usage(0, 800)


def test_the_tallies_are_folded_and_given_with_the_bucket(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bucket = owner("ann"), make_bucket()
    put(cluster, bucket, "a", b"x" * 100)
    put(cluster, bucket, "b", b"x" * 100)
    monkeypatch.setattr(tally, "FOLD_FROM", 0)
    Tally.fold()
    assert require_recount(nobody()) == Usage(2, 200)
    call_command("give_files", "ann")
    assert require_recount(ann) == Usage(2, 200)
    assert require_recount(nobody()) == Usage(0, 0)
    assert [account.used for account in quotas.accounts() if account.owner == ann] == [Usage(2, 200)]
    bucket.refresh_from_db()
    assert get(objects.find_bucket(ann, "bucket"), "a") == b"x" * 100
