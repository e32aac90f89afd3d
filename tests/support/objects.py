"""Steps of the S3 door, without HTTP: a body arrives, is stored, and gets its place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from storage.models import (
    AcceptedPart,
    Bucket,
    Destination,
    Multipart,
    Object,
    OpenObject,
    Part,
    Properties,
    nobody,
)
from storage.services import intake, objects
from storage.services.objects import Condition
from storage.services.objects.places import ALWAYS
from tests.support.cluster import ClusterUnderTest

LEAST = 5 << 20


def make_bucket(name: str = "bucket", owner: User | None = None) -> Bucket:
    return objects.create_bucket(owner or nobody(), name)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def arrive(
    bucket: Bucket,
    data: bytes,
    key: str | None = None,
    *,
    declared: int | None = None,
    checksums: dict[str, str] | None = None,
    then: Callable[[], object] = lambda: None,
) -> AcceptedPart:
    """Receive a body, up to the job that will ingest it."""
    size = len(data) if declared is None else declared
    destination = Destination(bucket, key)
    with intake.Reception(
        bucket.owner, declared_size=size, replication_factor=bucket.factor, destination=destination
    ) as reception:
        for start in range(0, len(data), 10_000):
            reception.write(data[start : start + 10_000])
        then()
        return reception.accept_part(etag=md5(data), checksums=checksums)


def stored(cluster: ClusterUnderTest, bucket: Bucket, data: bytes, key: str | None = None) -> int:
    """Receive and ingest a body; returns the row id of its pending part."""
    accepted = arrive(bucket, data, key)
    cluster.ingest()
    assert intake.finish(accepted, 5) is not None
    return accepted.part_id


def put(
    cluster: ClusterUnderTest,
    bucket: Bucket,
    key: str,
    data: bytes,
    properties: Properties | None = None,
    *,
    condition: Condition = ALWAYS,
) -> Object:
    part_id = stored(cluster, bucket, data, key)
    return objects.put(bucket, key, part_id, properties or Properties(), condition=condition)


def put_part(cluster: ClusterUnderTest, upload: Multipart, number: int, data: bytes) -> Part:
    return objects.put_part(upload, number, stored(cluster, upload.bucket, data))


def get(bucket: Bucket, key: str, *ranges: range) -> bytes:
    return b"".join(objects.read(objects.open_object(bucket, key), ranges or None))


def once_found(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Make a change when the next reader has found an object, and has not read any of its bytes."""
    find = OpenObject.find

    def find_and_change(bucket: Bucket, key: str) -> OpenObject | None:
        found = find(bucket, key)
        monkeypatch.setattr(OpenObject, "find", find)
        change()
        return found

    monkeypatch.setattr(OpenObject, "find", find_and_change)
