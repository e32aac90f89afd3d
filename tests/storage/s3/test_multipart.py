"""Multipart uploads at the S3 door, used through boto3."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from storage.models import Content, Multipart, Part
from storage.s3 import checksums
from tests.support.cluster import content_of
from tests.support.objects import once_found
from tests.support.s3 import refused

MIN = 5 << 20
BIG = [bytes([number]) * MIN for number in range(2)]
WHERE = {"Bucket": "bucket", "Key": "key"}


@pytest.fixture
def begin(s3: Any) -> Callable[..., str]:
    s3.create_bucket(Bucket="bucket")

    def make(**arguments: Any) -> str:
        return str(s3.create_multipart_upload(**WHERE, **arguments)["UploadId"])

    return make


def send(s3: Any, upload: str, number: int, data: bytes, **arguments: Any) -> dict[str, Any]:
    put = s3.upload_part(**WHERE, UploadId=upload, PartNumber=number, Body=data, **arguments)
    return {"PartNumber": number, "ETag": put["ETag"]}


def finish(s3: Any, upload: str, parts: list[dict[str, Any]], **arguments: Any) -> dict[str, Any]:
    done: dict[str, Any] = s3.complete_multipart_upload(
        **WHERE, UploadId=upload, MultipartUpload={"Parts": parts}, **arguments
    )
    return done


def test_an_object_of_parts(s3: Any, begin: Callable[..., str]) -> None:
    upload = begin(Metadata={"note": "1"}, ContentType="text/x")
    listed = [send(s3, upload, number, data) for number, data in ((1, BIG[0]), (2, BIG[1]), (7, b"end"))]
    told = s3.list_parts(**WHERE, UploadId=upload, MaxParts=2)
    assert ([part["PartNumber"] for part in told["Parts"]], told["IsTruncated"]) == ([1, 2], True)
    rest = s3.list_parts(**WHERE, UploadId=upload, PartNumberMarker=told["NextPartNumberMarker"])
    assert ([part["Size"] for part in rest["Parts"]], rest["IsTruncated"]) == ([3], False)
    done = finish(s3, upload, listed)
    md5 = hashlib.md5(b"".join(hashlib.md5(data).digest() for data in (*BIG, b"end"))).hexdigest()
    assert done["ETag"] == f'"{md5}-3"'
    assert finish(s3, upload, listed)["ETag"] == done["ETag"]
    found = s3.get_object(**WHERE)
    assert found["Body"].read() == b"".join(BIG) + b"end"
    assert (found["Metadata"], found["ContentType"]) == ({"note": "1"}, "text/x")
    across = s3.get_object(**WHERE, Range=f"bytes={MIN - 2}-{MIN + 1}")
    assert across["Body"].read() == b"\0\0\1\1"
    last = s3.get_object(**WHERE, PartNumber=3)
    assert last["Body"].read() == b"end"
    assert last["PartsCount"] == 3
    refused("InvalidPart", 400, s3.get_object, **WHERE, PartNumber=9)
    attributes = s3.get_object_attributes(**WHERE, ObjectAttributes=["ObjectParts"])
    assert attributes["ObjectParts"]["TotalPartsCount"] == 3


def test_bad_completions_change_nothing(s3: Any, begin: Callable[..., str]) -> None:
    upload = begin()
    first, last = send(s3, upload, 1, b"small"), send(s3, upload, 2, b"end")
    refused("EntityTooSmall", 400, finish, s3=s3, upload=upload, parts=[first, last])
    refused("InvalidPartOrder", 400, finish, s3=s3, upload=upload, parts=[last, first])
    refused("InvalidPart", 400, finish, s3=s3, upload=upload, parts=[{**first, "ETag": '"0"'}])
    refused("InvalidPart", 400, finish, s3=s3, upload=upload, parts=[{**first, "PartNumber": 9}])
    refused("MalformedXML", 400, finish, s3=s3, upload=upload, parts=[])
    refused("NoSuchUpload", 404, finish, s3=s3, upload="0" * 32, parts=[first])
    refused("NoSuchUpload", 404, finish, s3=s3, upload="nonsense", parts=[first])
    refused("NoSuchKey", 404, s3.get_object, **WHERE)
    finish(s3, upload, [last])
    assert s3.get_object(**WHERE)["Body"].read() == b"end"


def test_a_part_is_replaced(s3: Any, begin: Callable[..., str]) -> None:
    upload = begin()
    old, new = send(s3, upload, 1, b"old"), send(s3, upload, 1, b"new")
    refused("InvalidPart", 400, finish, s3=s3, upload=upload, parts=[old])
    finish(s3, upload, [new])
    assert s3.get_object(**WHERE)["Body"].read() == b"new"


def test_aborted_uploads_are_gone(s3: Any, begin: Callable[..., str]) -> None:
    upload = begin()
    part = send(s3, upload, 1, b"bytes")
    assert [entry["UploadId"] for entry in s3.list_multipart_uploads(Bucket="bucket")["Uploads"]] == [upload]
    s3.abort_multipart_upload(**WHERE, UploadId=upload)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="bucket")
    refused("NoSuchUpload", 404, s3.abort_multipart_upload, **WHERE, UploadId=upload)
    refused("NoSuchUpload", 404, send, s3=s3, upload=upload, number=2, data=b"x")
    refused("NoSuchUpload", 404, finish, s3=s3, upload=upload, parts=[part])
    assert (Part.objects.count(), Multipart.objects.count()) == (0, 0)


def test_parts_that_are_copied(s3: Any, begin: Callable[..., str]) -> None:
    s3.put_object(Bucket="bucket", Key="source", Body=BIG[0] + b"tail")
    upload = begin()
    parts = []
    for number, span in ((1, f"bytes=0-{MIN - 1}"), (2, f"bytes={MIN}-{MIN + 3}")):
        copied = s3.upload_part_copy(
            **WHERE, UploadId=upload, PartNumber=number, CopySource="bucket/source", CopySourceRange=span
        )
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    finish(s3, upload, parts)
    assert s3.get_object(**WHERE)["Body"].read() == BIG[0] + b"tail"
    upload = begin()
    contents = Content.objects.count()
    s3.upload_part_copy(**WHERE, UploadId=upload, PartNumber=1, CopySource="bucket/source")
    assert Content.objects.count() == contents
    for span, code, status in (("bytes=0-99999999", "InvalidRange", 416), ("bytes=5-", "InvalidArgument", 400)):
        arguments = {**WHERE, "UploadId": upload, "PartNumber": 1, "CopySource": "bucket/source"}
        refused(code, status, s3.upload_part_copy, CopySourceRange=span, **arguments)


@pytest.mark.parametrize("has_checksum", [True, False], ids=["nothing is read", "the bytes are read"])
@pytest.mark.parametrize("change", ["overwritten", "deleted"])
def test_a_copied_part_is_of_the_version_that_is_there(
    s3: Any, begin: Callable[..., str], has_checksum: bool, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is overwritten or deleted after it was found, and before the copy refers to its bytes."""
    monkeypatch.setattr("storage.models.statements.open_content.HEAD", 2)
    source = {"Bucket": "bucket", "Key": "source"}
    s3.put_object(**source, Body=content_of(5))
    upload = begin(ChecksumAlgorithm="CRC64NVME" if has_checksum else "SHA1")
    arguments = {**WHERE, "UploadId": upload, "PartNumber": 1, "CopySource": "bucket/source"}
    if change == "deleted":
        once_found(monkeypatch, lambda: s3.delete_object(**source))
        refused("NoSuchKey", 404, s3.upload_part_copy, **arguments)
        assert Part.objects.count() == 0
    else:
        new = content_of(4, "new")
        once_found(monkeypatch, lambda: s3.put_object(**source, Body=new))
        etag = s3.upload_part_copy(**arguments)["CopyPartResult"]["ETag"]
        assert etag == f'"{hashlib.md5(new).hexdigest()}"', "the source was there all the time"
        finish(s3, upload, [{"PartNumber": 1, "ETag": etag}])
        assert s3.get_object(**WHERE)["Body"].read() == new


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("CRC32", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("SHA256", "COMPOSITE")]
)
def test_checksums_of_parts(s3: Any, begin: Callable[..., str], algorithm: str, kind: str) -> None:
    upload = begin(ChecksumAlgorithm=algorithm, ChecksumType=kind)
    parts, values = [], []
    for number, data in ((1, BIG[0]), (2, b"end")):
        put = s3.upload_part(**WHERE, UploadId=upload, PartNumber=number, Body=data, ChecksumAlgorithm=algorithm)
        name = f"Checksum{algorithm}"
        parts.append({"PartNumber": number, "ETag": put["ETag"], name: put[name]})
        values.append(base64.b64decode(put[name]))
    wrong = [{**parts[0], name: parts[1][name]}, parts[1]]
    refused("InvalidPart", 400, finish, s3=s3, upload=upload, parts=wrong)
    done = finish(s3, upload, parts)
    whole = checksums.begin(algorithm)
    whole.update(BIG[0] + b"end")
    expected = checksums.encode(whole.digest()) if kind == "FULL_OBJECT" else checksums.composite(algorithm, values)
    assert (done[name], done["ChecksumType"]) == (expected, kind)
    assert s3.head_object(**WHERE, ChecksumMode="ENABLED")[name] == expected


@pytest.mark.parametrize("algorithm", ["CRC64NVME", "SHA1"])
def test_a_copied_part_has_the_checksum_of_its_upload(s3: Any, begin: Callable[..., str], algorithm: str) -> None:
    """The source was stored with a checksum of another algorithm."""
    s3.put_object(Bucket="bucket", Key="source", Body=BIG[0], ChecksumAlgorithm="CRC32")
    upload = begin(ChecksumAlgorithm=algorithm)
    copied = s3.upload_part_copy(**WHERE, UploadId=upload, PartNumber=1, CopySource="bucket/source")
    result = copied["CopyPartResult"]
    expected = checksums.begin(algorithm)
    expected.update(BIG[0])
    assert result[f"Checksum{algorithm}"] == checksums.encode(expected.digest())
    finish(s3, upload, [{"PartNumber": 1, "ETag": result["ETag"]}])
    assert s3.get_object(**WHERE)["Body"].read() == BIG[0]


def test_conditional_completion(s3: Any, begin: Callable[..., str]) -> None:
    s3.put_object(**WHERE, Body=b"old")
    upload = begin()
    part = send(s3, upload, 1, b"new")
    refused("PreconditionFailed", 412, finish, s3=s3, upload=upload, parts=[part], IfNoneMatch="*")
    assert s3.get_object(**WHERE)["Body"].read() == b"old"


@pytest.mark.parametrize("number", [0, 10001])
def test_numbers_of_parts(s3: Any, begin: Callable[..., str], number: int) -> None:
    refused("InvalidArgument", 400, send, s3=s3, upload=begin(), number=number, data=b"x")
