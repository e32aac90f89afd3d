"""Buckets and listings at the S3 door, used through boto3."""

from __future__ import annotations

from typing import Any

import pytest

from storage.s3 import door, router
from tests.support.s3 import ask, refused


def test_every_operation_has_a_handler() -> None:
    assert set(door.HANDLERS) == router.NAMES


def test_a_bucket_from_its_beginning_to_its_end(s3: Any) -> None:
    s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "occ"})
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["bucket"]
    assert s3.head_bucket(Bucket="bucket")["BucketRegion"] == "occ"
    refused("BucketAlreadyOwnedByYou", 409, s3.create_bucket, Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="key", Body=b"x")
    refused("BucketNotEmpty", 409, s3.delete_bucket, Bucket="bucket")
    s3.delete_object(Bucket="bucket", Key="key")
    s3.delete_bucket(Bucket="bucket")
    refused("404", 404, s3.head_bucket, Bucket="bucket")
    refused("NoSuchBucket", 404, s3.list_objects_v2, Bucket="bucket")
    refused("NoSuchBucket", 404, s3.put_object, Bucket="bucket", Key="key", Body=b"x")


def test_bad_names(s3: Any) -> None:
    refused("InvalidBucketName", 400, s3.create_bucket, Bucket="Upper")
    assert ask("PUT", "/")[0] == 405


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("get_bucket_policy", "NoSuchBucketPolicy"),
        ("get_bucket_cors", "NoSuchCORSConfiguration"),
        ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
        ("get_bucket_tagging", "NoSuchTagSet"),
        ("get_bucket_website", "NoSuchWebsiteConfiguration"),
        ("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
        ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
        ("get_public_access_block", "NoSuchPublicAccessBlockConfiguration"),
        ("get_bucket_ownership_controls", "OwnershipControlsNotFoundError"),
    ],
)
def test_what_a_bucket_does_not_have(s3: Any, operation: str, code: str) -> None:
    s3.create_bucket(Bucket="bucket")
    refused(code, 404, getattr(s3, operation), Bucket="bucket")


def test_what_is_not_implemented(s3: Any) -> None:
    s3.create_bucket(Bucket="bucket")
    versioning = {"Status": "Enabled"}
    refused("NotImplemented", 501, s3.put_bucket_versioning, Bucket="bucket", VersioningConfiguration=versioning)
    assert "Status" not in s3.get_bucket_versioning(Bucket="bucket")
    assert s3.get_bucket_location(Bucket="bucket")["LocationConstraint"] == "occ"
    assert s3.get_bucket_acl(Bucket="bucket")["Grants"][0]["Permission"] == "FULL_CONTROL"
    s3.put_bucket_acl(Bucket="bucket", ACL="private")
    refused("AccessControlListNotSupported", 400, s3.put_bucket_acl, Bucket="bucket", ACL="public-read")


def test_pages_of_allowed_origins(s3: Any, settings: Any) -> None:
    s3.create_bucket(Bucket="bucket")
    wanted = {"Origin": "https://app.example", "Access-Control-Request-Headers": "authorization, x-amz-date"}
    assert ask("OPTIONS", "/bucket/key", headers=wanted)[0] == 403
    assert "Vary" not in ask("GET", "/bucket", headers=wanted)[1]
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example"]
    status, headers, _ = ask("OPTIONS", "/bucket/key", headers=wanted)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "https://app.example")
    assert headers["Access-Control-Allow-Headers"] == "authorization, x-amz-date"
    assert "PUT" in headers["Access-Control-Allow-Methods"]
    for path, code in (("/bucket", 200), ("/none", 404)):
        status, headers, _ = ask("GET", path, headers=wanted)
        assert (status, headers["Access-Control-Allow-Origin"]) == (code, "https://app.example")
        assert "ETag" in headers["Access-Control-Expose-Headers"]
    other = {**wanted, "Origin": "https://other.example"}
    assert ask("OPTIONS", "/bucket/key", headers=other)[0] == 403
    assert "Access-Control-Allow-Origin" not in ask("GET", "/bucket", headers=other)[1]


KEYS = ["a", "b/1", "b/2", "b/c/1", "d", "e+f g", "é/1"]


@pytest.fixture
def filled(s3: Any) -> str:
    s3.create_bucket(Bucket="bucket")
    for key in KEYS:
        s3.put_object(Bucket="bucket", Key=key, Body=key.encode())
    return "bucket"


def entries(page: dict[str, Any]) -> list[str]:
    found = [entry["Key"] for entry in page.get("Contents", [])]
    return sorted([*found, *(entry["Prefix"] for entry in page.get("CommonPrefixes", []))], key=str.encode)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({}, KEYS),
        ({"Delimiter": "/"}, ["a", "b/", "d", "e+f g", "é/"]),
        ({"Prefix": "b/"}, ["b/1", "b/2", "b/c/1"]),
        ({"Prefix": "b/", "Delimiter": "/"}, ["b/1", "b/2", "b/c/"]),
        ({"Prefix": "e+f g"}, ["e+f g"]),
        ({"Prefix": "none"}, []),
        ({"Delimiter": "f g"}, ["a", "b/1", "b/2", "b/c/1", "d", "e+f g", "é/1"]),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("version", ["list_objects", "list_objects_v2"])
def test_listings_in_pages(
    s3: Any, filled: str, version: str, size: int, arguments: dict[str, str], wanted: list[str]
) -> None:
    paginator = s3.get_paginator(version)
    pages = list(paginator.paginate(Bucket=filled, PaginationConfig={"PageSize": size}, **arguments))
    assert [entry for page in pages for entry in entries(page)] == wanted
    assert all(len(entries(page)) <= size for page in pages)
    assert [page["IsTruncated"] for page in pages] == [True] * (len(pages) - 1) + [False]


def test_markers(s3: Any, filled: str) -> None:
    assert entries(s3.list_objects_v2(Bucket=filled, StartAfter="b/2")) == KEYS[3:]
    assert entries(s3.list_objects(Bucket=filled, Marker="b/2")) == KEYS[3:]
    assert s3.list_objects_v2(Bucket=filled, MaxKeys=0)["IsTruncated"] is False
    refused("InvalidArgument", 400, s3.list_objects_v2, Bucket=filled, ContinuationToken="nonsense!")
    for query in ("max-keys=x", "max-keys=-1", "encoding-type=x", "prefix=%00"):
        assert ask("GET", f"/{filled}?{query}")[0] == 400, query
    assert ask("GET", f"/{filled}?prefix=%ff")[0] == 400


def test_entries_say_what_is_stored(s3: Any, filled: str) -> None:
    entry = s3.list_objects_v2(Bucket=filled, FetchOwner=True)["Contents"][0]
    head = s3.head_object(Bucket=filled, Key="a")
    assert (entry["Key"], entry["Size"], entry["ETag"], entry["StorageClass"]) == ("a", 1, head["ETag"], "STANDARD")
    assert entry["Owner"]["DisplayName"] == "nobody"
    assert entry["LastModified"].replace(microsecond=0) == head["LastModified"]


def test_every_object_has_one_version(s3: Any, filled: str) -> None:
    versions = s3.list_object_versions(Bucket=filled)["Versions"]
    assert [(entry["Key"], entry["VersionId"], entry["IsLatest"]) for entry in versions] == [
        (key, "null", True) for key in KEYS
    ]
    assert s3.get_object(Bucket=filled, Key="a", VersionId="null")["Body"].read() == b"a"
    refused("NoSuchVersion", 404, s3.get_object, Bucket=filled, Key="a", VersionId="other")


@pytest.mark.parametrize(
    "fields", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_while_keys_are_off_a_page_of_another_site_changes_nothing(
    s3: Any, filled: str, fields: dict[str, str]
) -> None:
    document = b"<Delete><Object><Key>a</Key></Object></Delete>"
    for method, uri, body in (
        ("POST", f"/{filled}?delete", document),
        ("PUT", f"/{filled}/a", b"other"),
        ("DELETE", f"/{filled}/a", b""),
        ("POST", f"/{filled}/new?uploads", b""),
    ):
        status, _, answer = ask(method, uri, body, fields)
        assert (status, b"AccessDenied" in answer) == (403, True), (method, uri)
    assert s3.get_object(Bucket=filled, Key="a")["Body"].read() == b"a"
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=filled)
