"""Objects at the S3 door, used through boto3."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import zlib
from typing import Any

import pytest
from django.db import connection

from storage.models import Activity, Content, Part, Upload
from storage.services import objects
from storage.staging import files
from tests.support.api import Socket
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.objects import once_found
from tests.support.s3 import ask, client_of, refused

HARD = ["a b", "a+b", "a%2Fb", "a//b", "/lead", "é/ü", "😀", "quote'\"&<>", "tail/", "a\nb\x01", "x" * 1024, "ü" * 512]


@pytest.fixture
def bucket(s3: Any) -> str:
    s3.create_bucket(Bucket="bucket")
    return "bucket"


@pytest.mark.parametrize("key", HARD)
def test_an_object_comes_back_under_any_key(s3: Any, bucket: str, key: str) -> None:
    put = s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert put["ETag"] == f'"{hashlib.md5(key.encode()).hexdigest()}"'
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(key.encode())
    for listed in (s3.list_objects_v2(Bucket=bucket), s3.list_objects(Bucket=bucket)):
        assert [entry["Key"] for entry in listed["Contents"]] == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    refused("NoSuchKey", 404, s3.get_object, Bucket=bucket, Key=key)


@pytest.mark.parametrize("data", [b"", b"x", content_of(3)], ids=["empty", "small", "chunks"])
def test_every_size_comes_back(s3: Any, bucket: str, data: bytes) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=data)
    found = s3.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert found["Body"].read() == data
    assert found["ContentType"] == "binary/octet-stream"
    assert found["ChecksumCRC32"] == s3.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")["ChecksumCRC32"]


def test_what_the_client_says_comes_back(s3: Any, bucket: str) -> None:
    said = {
        "CacheControl": "max-age=60",
        "ContentDisposition": 'attachment; filename="a.txt"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "ContentType": "text/plain; charset=utf-8",
        "Metadata": {"note": "one", "another-note": "2", "another_note": "3", "a%5fb": "4"},
        "StorageClass": "REDUCED_REDUNDANCY",
    }
    s3.put_object(Bucket=bucket, Key="key", Body=b"bytes", Tagging="a=1&b=2", **said)
    for read in (s3.get_object, s3.head_object):
        found = read(Bucket=bucket, Key="key")
        assert {name: found[name] for name in said} == said
    assert found["ResponseMetadata"]["HTTPHeaders"]["x-amz-tagging-count"] == "2"
    assert Content.objects.get().target == 2


@pytest.mark.parametrize("value", ["zwölf".encode().decode("latin-1"), "zw\xf6lf"], ids=["UTF-8", "Latin-1"])
def test_metadata_comes_back_byte_for_byte(s3: Any, bucket: str, value: str) -> None:
    assert ask("PUT", f"/{bucket}/key", b"x", {"x-amz-meta-note": value})[0] == 200
    assert ask("HEAD", f"/{bucket}/key")[1]["x-amz-meta-note"] == value


def test_a_read_can_ask_for_other_fields(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"bytes")
    found = s3.get_object(Bucket=bucket, Key="key", ResponseContentType="text/x", ResponseCacheControl="no-store")
    assert (found["ContentType"], found["CacheControl"]) == ("text/x", "no-store")
    status, _, _ = ask("GET", f"/{bucket}/key?response-content-type=a%0d%0ab")
    assert status == 400


@pytest.mark.parametrize(
    ("field", "wanted"),
    [("bytes=0-0", b"0"), ("bytes=5-", b"56789"), ("bytes=-3", b"789"), ("bytes=8-100", b"89"), ("bytes=2-4", b"234")],
)
def test_ranges(s3: Any, bucket: str, field: str, wanted: bytes) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"0123456789")
    found = s3.get_object(Bucket=bucket, Key="key", Range=field)
    assert (found["Body"].read(), found["ResponseMetadata"]["HTTPStatusCode"]) == (wanted, 206)
    assert found["ContentRange"].endswith("/10")


def test_ranges_that_are_none(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"0123456789")
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    for key, field in (("key", "bytes=10-"), ("empty", "bytes=0-1"), ("key", "bytes=-0")):
        refused("InvalidRange", 416, s3.get_object, Bucket=bucket, Key=key, Range=field)
    assert s3.get_object(Bucket=bucket, Key="key", Range="bytes=4-2")["Body"].read() == b"0123456789"


def test_conditional_reads(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="key", Body=b"bytes")["ETag"]
    where = {"Bucket": bucket, "Key": "key"}
    assert s3.get_object(IfMatch=etag.strip('"'), **where)["Body"].read() == b"bytes"
    refused("PreconditionFailed", 412, s3.get_object, IfMatch='"other"', **where)
    assert s3.get_object(IfNoneMatch='"other"', **where)["Body"].read() == b"bytes"
    refused("304", 304, s3.get_object, IfNoneMatch=etag, **where)
    refused("304", 304, s3.head_object, IfModifiedSince="Fri, 01 Jan 2100 00:00:00 GMT", **where)
    refused("412", 412, s3.head_object, IfUnmodifiedSince="Fri, 01 Jan 2010 00:00:00 GMT", **where)


def test_conditional_writes(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "key"}
    refused("NoSuchKey", 404, s3.put_object, Body=b"x", IfMatch='"other"', **where)
    etag = s3.put_object(Body=b"one", IfNoneMatch="*", **where)["ETag"]
    refused("PreconditionFailed", 412, s3.put_object, Body=b"two", IfNoneMatch="*", **where)
    refused("PreconditionFailed", 412, s3.put_object, Body=b"two", IfMatch='"other"', **where)
    assert s3.get_object(**where)["Body"].read() == b"one"
    refused("PreconditionFailed", 412, s3.put_object, Body=b"two", IfNoneMatch=etag, **where)
    s3.put_object(Body=b"one", IfNoneMatch='"other"', **where)
    s3.put_object(Body=b"two", IfMatch=etag, **where)
    assert s3.get_object(**where)["Body"].read() == b"two"
    assert Part.objects.count() == 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"Content-MD5": "AAAA"}, "InvalidDigest"),
        ({"Content-MD5": base64.b64encode(bytes(16)).decode()}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, "BadDigest"),
        ({"x-amz-checksum-sha256": "AAAAAA=="}, "BadDigest"),
        ({"x-amz-checksum-sha1": base64.b64encode(bytes(20)).decode()}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-crc32c": "AAAAAA=="}, "InvalidRequest"),
        ({"x-amz-content-sha256": "0" * 64}, "XAmzContentSHA256Mismatch"),
        ({"x-amz-content-sha256": "nonsense"}, "InvalidArgument"),
        ({"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}, "MissingContentLength"),
        ({"Content-Length": "9"}, "IncompleteBody"),
        ({"x-amz-storage-class": "GLACIER"}, "InvalidStorageClass"),
        ({"x-amz-acl": "public-read"}, "AccessControlListNotSupported"),
        ({"x-amz-server-side-encryption": "aws:kms"}, "NotImplemented"),
        ({"x-amz-meta-big": "x" * 2048}, "MetadataTooLarge"),
        ({"x-amz-tagging": "a=1&a=2"}, "InvalidTag"),
    ],
)
def test_a_bad_put_leaves_nothing(
    s3: Any, bucket: str, cluster: ClusterUnderTest, fields: dict[str, str], code: str
) -> None:
    status, _, body = ask("PUT", f"/{bucket}/key", b"bytes", fields)
    assert f"<Code>{code}</Code>".encode() in body, body
    assert 400 <= status < 502
    assert (Part.objects.count(), Content.objects.count(), cluster.staged()) == (0, 0, [])
    refused("NoSuchKey", 404, s3.get_object, Bucket=bucket, Key="key")


def test_a_put_says_where_its_body_ends(s3: Any, bucket: str) -> None:
    status, _, body = ask("PUT", f"/{bucket}/key", b"", {"Content-Length": ""})
    assert (status, b"<Code>MissingContentLength</Code>" in body) == (411, True)
    assert ask("PUT", f"/{bucket}/key", b"bytes", {"Transfer-Encoding": "chunked"})[0] == 200
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"bytes"


def test_trailers_are_checked(s3: Any, bucket: str) -> None:
    body = b"5\r\nbytes\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n"
    fields = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": "5",
        "x-amz-trailer": "x-amz-checksum-crc32",
        "content-encoding": "aws-chunked",
    }
    crc = base64.b64encode(zlib.crc32(b"bytes").to_bytes(4, "big"))
    status, headers, answer = ask("PUT", f"/{bucket}/key", body % crc, fields)
    assert (status, headers["x-amz-checksum-crc32"]) == (200, crc.decode()), answer
    assert "ContentEncoding" not in s3.head_object(Bucket=bucket, Key="key")
    status, _, answer = ask("PUT", f"/{bucket}/other", body % b"AAAAAA==", fields)
    assert b"<Code>BadDigest</Code>" in answer
    for length in ("4", "6"):
        _, _, answer = ask("PUT", f"/{bucket}/other", body % crc, {**fields, "x-amz-decoded-content-length": length})
        assert b"<Code>IncompleteBody</Code>" in answer
    status, _, answer = ask("PUT", f"/{bucket}/other", b"5\r\nbytes\r\n0\r\n\r\n", fields)
    assert status == 400
    refused("NoSuchKey", 404, s3.get_object, Bucket=bucket, Key="other")


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_checksums_are_stored(s3: Any, bucket: str, algorithm: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="key", Body=b"bytes", ChecksumAlgorithm=algorithm)
    found = s3.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert found[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    told = s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=["Checksum", "ObjectSize", "ETag"])
    assert told["Checksum"] == {f"Checksum{algorithm}": put[f"Checksum{algorithm}"], "ChecksumType": "FULL_OBJECT"}
    assert (told["ObjectSize"], told["ETag"]) == (5, put["ETag"].strip('"'))


def test_without_a_checksum_it_is_computed(s3: Any, bucket: str) -> None:
    _, headers, _ = ask("PUT", f"/{bucket}/key", b"123456789")
    assert headers["x-amz-checksum-crc64nvme"] == base64.b64encode(bytes.fromhex("ae8b14860a799888")).decode()


def test_equal_bytes_are_stored_once(s3: Any, bucket: str) -> None:
    for key in ("one", "two"):
        s3.put_object(Bucket=bucket, Key=key, Body=content_of(2))
    assert Content.objects.count() == 1
    s3.delete_object(Bucket=bucket, Key="one")
    assert s3.get_object(Bucket=bucket, Key="two")["Body"].read() == content_of(2)


def test_copies(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a b/ü", Body=b"bytes", Metadata={"note": "1"}, ContentType="text/a")
    source = {"Bucket": bucket, "Key": "a b/ü"}
    etag = s3.head_object(**source)["ETag"]
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    assert copied["CopyObjectResult"]["ETag"] == etag
    found = s3.get_object(Bucket=bucket, Key="copy")
    assert (found["Body"].read(), found["Metadata"], found["ContentType"]) == (b"bytes", {"note": "1"}, "text/a")
    replaced = {"MetadataDirective": "REPLACE", "Metadata": {"note": "2"}, "ContentType": "text/b"}
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/copy", **replaced)
    found = s3.get_object(Bucket=bucket, Key="copy")
    assert (found["Body"].read(), found["Metadata"], found["ContentType"]) == (b"bytes", {"note": "2"}, "text/b")
    refused("InvalidRequest", 400, s3.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/copy")
    refused("NoSuchKey", 404, s3.copy_object, Bucket=bucket, Key="x", CopySource=f"{bucket}/none")
    refused("NoSuchBucket", 404, s3.copy_object, Bucket=bucket, Key="x", CopySource="nobucket/none")
    conditional = {"CopySourceIfMatch": '"other"'}
    refused(
        "PreconditionFailed", 412, s3.copy_object, Bucket=bucket, Key="x", CopySource=f"{bucket}/copy", **conditional
    )


def test_a_copy_has_the_bytes_and_the_metadata_of_one_version(
    s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"one", Metadata={"is": "one"})
    copy = objects.copy

    def overtaken(*arguments: Any, **options: Any) -> Any:
        s3.put_object(Bucket=bucket, Key="key", Body=b"two", Metadata={"is": "two"})
        return copy(*arguments, **options)

    monkeypatch.setattr(objects, "copy", overtaken)
    tagged = {"TaggingDirective": "REPLACE", "Tagging": "a=1"}
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/key", **tagged)
    found = s3.get_object(Bucket=bucket, Key="copy")
    assert (found["Body"].read(), found["Metadata"]) == (b"two", {"is": "two"})


def test_many_are_deleted_at_once(s3: Any, bucket: str) -> None:
    for key in HARD:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    listed = [{"Key": key} for key in [*HARD, "never there"] if "\x01" not in key]
    deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": listed})
    assert {entry["Key"] for entry in deleted["Deleted"]} == {entry["Key"] for entry in listed}
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a\nb\x01"]
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "tail/"}], "Quiet": True})
    assert "Deleted" not in quiet
    status, _, body = ask("POST", f"/{bucket}?delete", b"<Delete><Object>")
    assert (status, b"MalformedXML" in body) == (400, True)


def test_deletions_are_in_the_activity(s3: Any, bucket: str) -> None:
    long = "x" * 1024
    for key in ("a", "b", long, "kept"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    s3.delete_object(Bucket=bucket, Key="a")
    s3.delete_object(Bucket=bucket, Key="never there")
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in ("b", long, "never there")]})
    found = list(Activity.objects.order_by("subject").values_list("action", "subject", "actor", "owner__username"))
    subjects = ("bucket/a", "bucket/b", f"bucket/{long}"[:255])
    assert found == [("delete", subject, "nobody", "nobody") for subject in subjects]


def test_conditional_deletions(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="key", Body=b"x")["ETag"]
    refused("PreconditionFailed", 412, s3.delete_object, Bucket=bucket, Key="key", IfMatch='"other"')
    told = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key", "ETag": '"other"'}]})
    assert [(entry["Key"], entry["Code"]) for entry in told["Errors"]] == [("key", "PreconditionFailed")]
    sized = {"x-amz-if-match-size": "1"}
    assert ask("DELETE", f"/{bucket}/key", headers=sized)[0] == 501
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"x"
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key", "ETag": etag}]})
    refused("NoSuchKey", 404, s3.get_object, Bucket=bucket, Key="key")
    s3.delete_object(Bucket=bucket, Key="key", IfMatch=etag)


def test_entities_are_refused(s3: Any, bucket: str) -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><Delete><Object><Key>&a;</Key></Object></Delete>'
    status, _, body = ask("POST", f"/{bucket}?delete", bomb)
    assert (status, b"MalformedXML" in body) == (400, True)


def test_tags(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "key"}
    s3.put_object(Body=b"x", Tagging="a=1", **where)
    assert s3.get_object_tagging(**where)["TagSet"] == [{"Key": "a", "Value": "1"}]
    s3.put_object_tagging(Tagging={"TagSet": [{"Key": "b", "Value": "ü"}]}, **where)
    assert s3.get_object_tagging(**where)["TagSet"] == [{"Key": "b", "Value": "ü"}]
    many = [{"Key": str(number), "Value": ""} for number in range(11)]
    refused("BadRequest", 400, s3.put_object_tagging, Tagging={"TagSet": many}, **where)
    s3.delete_object_tagging(**where)
    assert s3.get_object_tagging(**where)["TagSet"] == []


def test_the_error_document_names_the_request(s3: Any, bucket: str) -> None:
    status, headers, body = ask("GET", f"/{bucket}/none", headers={"X-Request-ID": "my-id"})
    assert (status, headers["x-amz-request-id"], headers["X-Request-ID"]) == (404, "my-id", "my-id")
    assert re.search(rb"<Error><Code>NoSuchKey</Code><Message>.+</Message>.*<RequestId>my-id</RequestId></Error>", body)
    status, headers, body = ask("HEAD", f"/{bucket}/none")
    assert (status, headers["Content-Length"], body) == (404, "0", b"")


def test_a_browser_runs_nothing_in_an_object(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="page.html", Body=b"<script>", ContentType="text/html", CacheControl="max-age=9")
    _, headers, _ = ask("GET", f"/{bucket}/page.html")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("max-age=9", "nosniff")


def test_a_client_that_goes_away_leaves_nothing(s3: Any, bucket: str, cluster: ClusterUnderTest) -> None:
    broken = Socket(content_of(80), ConnectionResetError())
    status, _, _ = ask("PUT", f"/{bucket}/key", broken, {"Content-Length": "999999"})
    assert status == 400
    assert (Part.objects.count(), Content.objects.count(), cluster.staged()) == (0, 0, [])


def test_a_body_that_is_not_stored_in_time_leaves_nothing(
    cluster: ClusterUnderTest, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, upload_wait=0)
    synced: list[Any] = []
    monkeypatch.setattr(files, "sync", synced.append)
    s3 = client_of()
    s3.create_bucket(Bucket="bucket")
    refused("SlowDown", 503, s3.put_object, Bucket="bucket", Key="key", Body=bytes(300_000))
    assert (Part.objects.count(), Upload.objects.count(), cluster.staged()) == (0, 0, [])
    assert synced == [], "the body was written to the disk, only to be deleted"


def test_who_waits_for_a_client_holds_no_connection_to_postgresql(s3: Any, bucket: str) -> None:
    held = []

    class Slow(Socket):
        def read(self, size: int) -> bytes:
            held.append(connection.connection is not None)
            return super().read(size)

    assert ask("PUT", f"/{bucket}/key", Slow(b"bytes"), {"Content-Length": "5"})[0] == 200
    document = b"<AccessControlPolicy/>"
    assert ask("PUT", f"/{bucket}/key?acl", Slow(document), {"Content-Length": str(len(document))})[0] == 200
    assert held == [False, False]


def test_virtual_hosts(s3: Any, bucket: str, settings: Any) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, s3_domain="s3.example")
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"bytes")
    assert ask("GET", "/a/b", headers={"Host": "bucket.s3.example:5005"})[2] == b"bytes"
    assert ask("GET", "/bucket/a/b", headers={"Host": "s3.example"})[2] == b"bytes"


def test_a_presigned_address_works_without_keys(s3: Any, bucket: str) -> None:
    address = client_of().generate_presigned_url("put_object", {"Bucket": bucket, "Key": "a b"})
    uri = address.partition("localhost:5005")[2]
    assert ask("PUT", uri, b"bytes")[0] == 200
    assert s3.get_object(Bucket=bucket, Key="a b")["Body"].read() == b"bytes"


@pytest.mark.parametrize("is_in_parts", [False, True], ids=["one body", "parts"])
@pytest.mark.parametrize("change", ["overwritten", "deleted"])
def test_an_object_that_changes_after_it_was_found_is_found_again(
    s3: Any, bucket: str, change: str, is_in_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hashes of some chunks are read after the object was found. By then, the object may be another one or gone."""
    monkeypatch.setattr("storage.models.statements.open_content.HEAD", 2)
    monkeypatch.setattr("storage.services.objects.multipart.LEAST_PART", 1)
    where = {"Bucket": bucket, "Key": "key"}
    if is_in_parts:
        upload = s3.create_multipart_upload(**where)["UploadId"]
        bodies = [content_of(1, "1"), content_of(3, "2")]
        sent = [s3.upload_part(**where, UploadId=upload, PartNumber=n, Body=d) for n, d in enumerate(bodies, 1)]
        parts = [{"PartNumber": number, "ETag": part["ETag"]} for number, part in enumerate(sent, 1)]
        s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    else:
        s3.put_object(**where, Body=content_of(5))
    new = content_of(4, "new")
    if change == "deleted":
        once_found(monkeypatch, lambda: s3.delete_object(**where))
        refused("NoSuchKey", 404, s3.get_object, **where)
    else:
        once_found(monkeypatch, lambda: s3.put_object(**where, Body=new))
        status, headers, body = ask("GET", "/bucket/key")
        assert status == 200, "an object was there all the time"
        assert (body, headers["ETag"]) == (new, f'"{hashlib.md5(new).hexdigest()}"')
