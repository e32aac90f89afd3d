"""Forms of browsers at the S3 door (PostObject), while keys are off."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import zlib
from typing import Any
from xml.etree import ElementTree

import pytest

from storage.s3.forms import LARGEST_FIELDS
from tests.support.api import Socket
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.posts import END, FORM, assert_nothing_left, body_of, code_of, field, file, post, presigned
from tests.support.s3 import ask, client_of


@pytest.fixture
def bucket(s3: Any) -> str:
    s3.create_bucket(Bucket="bucket")
    return "bucket"


def test_the_form_says_what_put_object_says_in_header_fields(s3: Any, bucket: str) -> None:
    tagging = "<Tagging><TagSet>\n<Tag><Key>a</Key><Value>ü</Value></Tag></TagSet></Tagging>"
    crc = base64.b64encode(zlib.crc32(b"bytes").to_bytes(4, "big")).decode()
    said = {
        "key": "key",
        "acl": "private",
        "Cache-Control": "max-age=60",
        "content-type": "text/plain",
        "Content-Disposition": "attachment",
        "Content-Encoding": "gzip",
        "Expires": "Thu, 01 Jan 2026 00:00:00 GMT",
        "X-Amz-Meta-Note_1": "zwölf",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
        "x-amz-checksum-crc32": crc,
        "tagging": tagging,
        "submit": "Upload\r\nnow",
    }
    status, headers, _ = post(said, headers={"x-amz-meta-of-the-request": "x", "x-amz-acl": "public-read"})
    assert (status, headers["x-amz-checksum-crc32"]) == (204, crc)
    found = s3.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert found["Metadata"] == {"note_1": "zwölf".encode().decode("latin-1")}
    named = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentType", "StorageClass", "ChecksumCRC32")
    told = [found[name] for name in named]
    assert told == ["max-age=60", "attachment", "gzip", "text/plain", "REDUCED_REDUNDANCY", crc]
    assert found["ExpiresString"] == said["Expires"]
    assert s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == [{"Key": "a", "Value": "ü"}]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"acl": "public-read"}, "AccessControlListNotSupported"),
        ({"x-amz-grant-read": "id=x"}, "AccessControlListNotSupported"),
        ({"x-amz-storage-class": "GLACIER"}, "InvalidStorageClass"),
        ({"x-amz-server-side-encryption": "aws:kms"}, "NotImplemented"),
        ({"x-amz-meta-big": "x" * 2048}, "MetadataTooLarge"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, "BadDigest"),
        ({"tagging": "<Tagging"}, "MalformedXML"),
        ({"tagging": "<Tagging><TagSet><Tag><Key></Key></Tag></TagSet></Tagging>"}, "MalformedXML"),
        ({"Content-Type": "text/plain\r\nSet-Cookie: a=b"}, "InvalidArgument"),
        ({"x-amz-meta-a%0D%0ASet-Cookie": "a"}, "InvalidArgument"),
        ({"x-amz-meta-ü": "a"}, "InvalidArgument"),
        ({"key": "x" * 1025}, "KeyTooLongError"),
        ({"key": "a\0b"}, "InvalidArgument"),
        ({"key": ""}, "UserKeyMustBeSpecified"),
    ],
)
def test_a_bad_field_leaves_nothing(
    s3: Any, bucket: str, cluster: ClusterUnderTest, fields: dict[str, str], code: str
) -> None:
    status, found = code_of(post({"key": "key", **fields}))
    assert found == code
    assert 400 <= status < 502
    assert_nothing_left(cluster)


def test_the_last_field_of_a_name_counts(s3: Any, bucket: str) -> None:
    assert post([("key", "one"), ("KEY", "two")])[0] == 204
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["two"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("cat.jpg", "a/cat.jpg/cat.jpg"),
        ("C:\\My Pictures\\ü.jpg", "a/ü.jpg/ü.jpg"),
        ("/home/ann/", "a//"),
        ("", "a//"),
        ("${filename}", "a/${filename}/${filename}"),
    ],
)
def test_the_key_has_the_name_of_the_file(s3: Any, bucket: str, name: str, key: str) -> None:
    assert post({"key": "a/${filename}/${filename}"}, name=name)[0] == 204
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"bytes"


def test_a_file_may_be_empty_or_have_no_name(s3: Any, bucket: str) -> None:
    assert post({"key": "empty"}, b"")[0] == 204
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""
    assert ask("POST", "/bucket", field("key", "text") + field("file", "bytes") + END, FORM)[0] == 204
    assert s3.get_object(Bucket=bucket, Key="text")["Body"].read() == b"bytes"


def test_fields_may_look_like_files(s3: Any, bucket: str) -> None:
    """The program ``requests`` sends every field with a file name if all fields are in its argument ``files``."""
    key = b'--BB\r\nContent-Disposition: form-data; name="key"; filename="key"\r\n\r\nkey\r\n'
    assert ask("POST", "/bucket", key + file(b"bytes") + END, FORM)[0] == 204
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"bytes"


def test_what_comes_after_the_file_is_ignored(s3: Any, bucket: str) -> None:
    after = field("key", "other") + field("submit", "x" * 2 * LARGEST_FIELDS) + file(b"second file")
    assert ask("POST", "/bucket", field("key", "key") + file(b"bytes") + after + END, FORM)[0] == 204
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert [(entry["Key"], entry["Size"]) for entry in listed] == [("key", 5)]


def test_a_form_may_come_in_chunks_and_to_a_virtual_host(s3: Any, bucket: str, settings: Any) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, s3_domain="s3.example")
    chunked = Socket(body_of({"key": "a b/ü"}))
    host = {"Host": "bucket.s3.example:5005", "Transfer-Encoding": "chunked"}
    status, headers, _ = ask("POST", "/", chunked, FORM | host)
    assert (status, headers["Location"]) == (204, "http://bucket.s3.example:5005/a%20b/%C3%BC")
    assert s3.get_object(Bucket=bucket, Key="a b/ü")["Body"].read() == b"bytes"


@pytest.mark.parametrize(
    ("wanted", "status"), [("200", 200), ("201", 201), ("204", 204), ("404", 204), ("", 204), ("x", 204)]
)
def test_the_status_is_chosen(s3: Any, bucket: str, wanted: str, status: int) -> None:
    answer = post({"key": "a b&c", "success_action_status": wanted})
    assert answer[0] == status
    if status != 201:
        assert answer[2] == b""
        return
    document = ElementTree.fromstring(answer[2])
    etag = f'"{hashlib.md5(b"bytes").hexdigest()}"'
    assert [(child.tag, child.text) for child in document] == [
        ("Location", "http://localhost:5005/bucket/a%20b%26c"),
        ("Bucket", "bucket"),
        ("Key", "a b&c"),
        ("ETag", etag),
    ]
    assert (document.tag, answer[1]["Content-Type"]) == ("PostResponse", "application/xml")


ETAG = f"%22{hashlib.md5(b'bytes').hexdigest()}%22"


@pytest.mark.parametrize("name", ["success_action_redirect", "redirect"])
@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("http://page.example/done", f"http://page.example/done?bucket=bucket&key=a+b%26&etag={ETAG}"),
        ("https://page.example/?a=1#x", f"https://page.example/?a=1&bucket=bucket&key=a+b%26&etag={ETAG}#x"),
    ],
)
def test_a_browser_is_sent_to_a_page(s3: Any, bucket: str, name: str, target: str, location: str) -> None:
    status, headers, body = post({"key": "a b&", name: target, "success_action_status": "201"})
    assert (status, headers["Location"], body) == (303, location, b"")
    assert s3.head_object(Bucket=bucket, Key="a b&")["ContentLength"] == 5


@pytest.mark.parametrize(
    "target",
    [
        "javascript:alert(1)",
        "/page",
        "http://",
        "http://[x/",
        "http://a\r\nb",
        "http://ü.example/",
        "ftp://a",
        "http://a/" + "x" * 2048,
    ],
)
def test_what_is_no_page_is_ignored(s3: Any, bucket: str, target: str) -> None:
    assert post({"key": "key", "success_action_redirect": target})[0] == 204


def test_without_keys_a_policy_is_checked_and_no_signature(s3: Any, bucket: str, cluster: ClusterUnderTest) -> None:
    fields = presigned(client_of(), "user/cat.jpg")
    assert code_of(post({**fields, "key": "other"})) == (403, "AccessDenied")
    assert code_of(post({**fields, "policy": "nonsense"})) == (400, "InvalidPolicyDocument")
    assert_nothing_left(cluster)
    assert post({**fields, "x-amz-signature": "0" * 64})[0] == 204


def test_without_keys_pages_of_other_sites_are_refused(s3: Any, bucket: str, settings: Any) -> None:
    assert code_of(post({"key": "key"}, headers={"Origin": "https://evil.example"})) == (403, "AccessDenied")
    settings.CORS_ALLOWED_ORIGINS = ["https://page.example"]
    status, headers, _ = post({"key": "key"}, headers={"Origin": "https://page.example"})
    assert (status, headers["Access-Control-Allow-Origin"]) == (204, "https://page.example")


def test_nothing_is_larger_than_the_server_allows(
    s3: Any, bucket: str, cluster: ClusterUnderTest, settings: Any
) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, max_upload_size=1000)
    assert code_of(post({"key": "key"}, bytes(1001))) == (400, "EntityTooLarge")
    assert code_of(post({"key": "key"}, bytes(3 << 20))) == (400, "EntityTooLarge")
    assert_nothing_left(cluster)
    assert post({"key": "key"}, bytes(1000))[0] == 204


def test_no_such_bucket(s3: Any, bucket: str, cluster: ClusterUnderTest) -> None:
    assert code_of(post({"key": "key"}, uri="/none")) == (404, "NoSuchBucket")
    assert_nothing_left(cluster)


MANY = [("key", "key"), *((f"x-ignore-{number}", "x" * 100) for number in range(200))]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (field("key", "key") + END, "IncorrectNumberOfFilesInPostRequest"),
        (b"", "IncorrectNumberOfFilesInPostRequest"),
        (file(b"bytes") + field("key", "key") + END, "UserKeyMustBeSpecified"),
        (body_of({"key": "key", "submit": "x" * LARGEST_FIELDS}), "MaxPostPreDataLengthExceededError"),
        (body_of(MANY), "MaxPostPreDataLengthExceededError"),
        (body_of([("key", "key"), *[("", "")] * 1000]), "MalformedPOSTRequest"),
        (b"x" * (3 << 20), "EntityTooLarge"),
        (b"bytes", "MalformedPOSTRequest"),
        (body_of({"key": "key"})[:-4], "MalformedPOSTRequest"),
        (body_of({"key": "key"}, content_of(80))[:-8], "MalformedPOSTRequest"),
        (body_of({"key": "key"}).replace(b"--BB--", b"--BBxx"), "MalformedPOSTRequest"),
        (body_of({"key": "k\xff"}).replace("ÿ".encode(), b"\xff"), "MalformedPOSTRequest"),
        (body_of({"key": "${filename}"}, name="\xff").replace("ÿ".encode(), b"\xff"), "MalformedPOSTRequest"),
        (b"--BB\r\nX: y\r\n\r\nz\r\n" + END, "MalformedPOSTRequest"),
    ],
)
def test_a_bad_form_leaves_nothing(s3: Any, bucket: str, cluster: ClusterUnderTest, body: bytes, code: str) -> None:
    assert code_of(ask("POST", "/bucket", body, FORM)) == (400, code)
    assert_nothing_left(cluster)


def test_the_boundary_is_needed(s3: Any, bucket: str) -> None:
    body = body_of({"key": "key"})
    for media_type in ("text/plain", "multipart/mixed; boundary=BB", ""):
        answer = ask("POST", "/bucket", body, {"Content-Type": media_type})
        assert code_of(answer) == (400, "RequestIsNotMultiPartContent")
    answer = ask("POST", "/bucket", body, {"Content-Type": "multipart/form-data"})
    assert code_of(answer) == (400, "MalformedPOSTRequest")


@pytest.mark.parametrize("size", [10, 300_000], ids=["in memory", "staged"])
@pytest.mark.parametrize(
    ("then", "code"),
    [(None, "IncompleteBody"), (ConnectionResetError(), "IncompleteBody"), (TimeoutError(), "RequestTimeout")],
    ids=["closed", "reset", "stalled"],
)
@pytest.mark.parametrize(
    "cut", [40, -400, -20, -3], ids=["in a field", "in the file", "in a later field", "in the end"]
)
def test_a_body_that_is_cut_leaves_nothing(
    s3: Any, bucket: str, cluster: ClusterUnderTest, size: int, then: Exception | None, code: str, cut: int
) -> None:
    late = field("submit", "x" * 300)
    body = field("key", "key") + file(content_of(80)[:size]) + late + END
    broken = Socket(body[:cut], then)
    answer = ask("POST", "/bucket", broken, FORM | {"Content-Length": str(len(body))})
    assert code_of(answer) == (400, code)
    assert_nothing_left(cluster)
