"""Which operations the S3 door allows to which keys and owners, while keys are on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from storage.accounts import keys, principals
from storage.models import Activity, KeyLimit, Scope
from storage.s3 import authentication, router
from tests.support.s3 import HOST, ask, client_of, refused

Make = Callable[..., Any]


def test_a_key_opens_the_door(s3_keys: Make) -> None:
    _, s3 = s3_keys()
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="a b+ü", Body=b"bytes")
    assert s3.get_object(Bucket="bucket", Key="a b+ü")["Body"].read() == b"bytes"


def test_without_a_good_key_there_is_no_way_in(s3_keys: Make) -> None:
    made, s3 = s3_keys()
    s3.create_bucket(Bucket="bucket")
    assert ask("GET", "/bucket")[0] == 403
    refused("InvalidAccessKeyId", 403, client_of("OCC" + "X" * 17, "x" * 40).list_buckets)
    refused("InvalidAccessKeyId", 403, client_of("short", "x").list_buckets)
    refused("SignatureDoesNotMatch", 403, client_of(made.key.pk, "x" * 40).list_buckets)
    keys.revoke(made.key.pk)
    principals.forget()
    refused("InvalidAccessKeyId", 403, s3.list_buckets)


def test_the_bytes_are_signed(s3_keys: Make) -> None:
    """A body that was changed on its way does not have the digest that was signed."""
    _, s3 = s3_keys()
    s3.create_bucket(Bucket="bucket")

    def change(request: Any, **_: Any) -> None:
        request.body = b"other"

    s3.meta.events.register_first("before-send.s3.PutObject", change)
    fields = {"ChecksumAlgorithm": "SHA256"}
    refused("XAmzContentSHA256Mismatch", 400, s3.put_object, Bucket="bucket", Key="k", Body=b"bytes", **fields)


def test_owners_see_nothing_of_each_other(s3_keys: Make) -> None:
    (_, ann), (_, ben) = s3_keys("ann"), s3_keys("ben")
    ann.create_bucket(Bucket="bucket")
    ann.put_object(Bucket="bucket", Key="key", Body=b"bytes")
    assert ben.list_buckets()["Buckets"] == []
    refused("BucketAlreadyExists", 409, ben.create_bucket, Bucket="bucket")
    for call in (ben.list_objects_v2, ben.delete_bucket):
        refused("AccessDenied", 403, call, Bucket="bucket")
    for call in (ben.get_object, ben.delete_object):
        refused("AccessDenied", 403, call, Bucket="bucket", Key="key")
    refused("AccessDenied", 403, ben.put_object, Bucket="bucket", Key="key", Body=b"x")
    ben.create_bucket(Bucket="other")
    refused("AccessDenied", 403, ben.copy_object, Bucket="other", Key="key", CopySource="bucket/key")


@pytest.mark.parametrize("scope", [Scope.READ, Scope.WRITE, Scope.DELETE])
def test_scopes(s3_keys: Make, scope: Scope) -> None:
    _, owner = s3_keys()
    owner.create_bucket(Bucket="bucket")
    owner.put_object(Bucket="bucket", Key="key", Body=b"bytes")
    _, limited = s3_keys(scopes=(scope,))
    where = {"Bucket": "bucket", "Key": "key"}
    calls: dict[Scope, list[Callable[[], Any]]] = {
        Scope.READ: [lambda: limited.get_object(**where), lambda: limited.list_objects_v2(Bucket="bucket")],
        Scope.WRITE: [lambda: limited.put_object(**where, Body=b"x"), lambda: limited.create_bucket(Bucket="new")],
        Scope.DELETE: [
            lambda: limited.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "none"}]}),
            lambda: limited.delete_object(**where),
        ],
    }
    for needed, attempts in calls.items():
        for attempt in attempts:
            if needed == scope:
                attempt()
            else:
                refused("AccessDenied", 403, attempt)
    if scope == Scope.WRITE:
        refused("AccessDenied", 403, limited.copy_object, Bucket="bucket", Key="copy", CopySource="bucket/key")


def test_a_key_for_a_part_of_a_bucket(s3_keys: Make) -> None:
    _, owner = s3_keys()
    for bucket in ("bucket", "other"):
        owner.create_bucket(Bucket=bucket)
        for key in ("in/1", "out"):
            owner.put_object(Bucket=bucket, Key=key, Body=b"bytes")
    _, limited = s3_keys(limit=KeyLimit("bucket", "in/"))
    assert [bucket["Name"] for bucket in limited.list_buckets()["Buckets"]] == ["bucket"]
    assert limited.get_object(Bucket="bucket", Key="in/1")["Body"].read() == b"bytes"
    assert limited.list_objects_v2(Bucket="bucket", Prefix="in/")["KeyCount"] == 1
    limited.head_bucket(Bucket="bucket")
    limited.put_object(Bucket="bucket", Key="in/2", Body=b"x")
    limited.copy_object(Bucket="bucket", Key="in/3", CopySource="bucket/in/2")
    told = limited.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "in/2"}, {"Key": "out"}]})
    assert ([entry["Key"] for entry in told["Deleted"]], told["Errors"][0]["Code"]) == (["in/2"], "AccessDenied")
    assert [act.subject for act in Activity.objects.all()] == ["bucket/in/2"]
    upload = limited.create_multipart_upload(Bucket="bucket", Key="in/5")["UploadId"]
    part = {"Bucket": "bucket", "Key": "in/5", "UploadId": upload, "PartNumber": 1}
    refusals: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (limited.get_object, {"Bucket": "bucket", "Key": "out"}),
        (limited.get_object, {"Bucket": "other", "Key": "in/1"}),
        (limited.put_object, {"Bucket": "bucket", "Key": "out", "Body": b"x"}),
        (limited.copy_object, {"Bucket": "bucket", "Key": "in/4", "CopySource": "bucket/out"}),
        (limited.upload_part_copy, {**part, "CopySource": "bucket/out"}),
        (limited.upload_part_copy, {**part, "CopySource": "other/in/1"}),
        (limited.list_objects_v2, {"Bucket": "bucket"}),
        (limited.list_objects, {"Bucket": "other", "Prefix": "in/"}),
        (limited.list_object_versions, {"Bucket": "bucket"}),
        (limited.list_multipart_uploads, {"Bucket": "bucket"}),
        (limited.delete_bucket, {"Bucket": "bucket"}),
        (limited.create_bucket, {"Bucket": "another"}),
        (limited.get_bucket_location, {"Bucket": "other"}),
    ]
    for call, arguments in refusals:
        refused("AccessDenied", 403, call, **arguments)
    assert owner.get_object(Bucket="bucket", Key="out")["Body"].read() == b"bytes"


def test_no_operation_reaches_beyond_the_limit_of_a_key(s3_keys: Make) -> None:
    _, owner = s3_keys()
    for bucket in ("bucket", "other"):
        owner.create_bucket(Bucket=bucket)
        for key in ("in/1", "out"):
            owner.put_object(Bucket=bucket, Key=key, Body=b"bytes")
    made, _ = s3_keys(limit=KeyLimit("bucket", "in/"))

    def told(method: str, path: str, parameter: str) -> tuple[int, bytes]:
        address = f"http://{HOST}{path}?{parameter}=" if parameter else f"http://{HOST}{path}"
        request = AWSRequest(method, address, {"Host": HOST})
        S3SigV4Auth(Credentials(made.key.pk, made.secret), "s3", "occ").add_auth(request)
        status, _, body = ask(method, address.partition(HOST)[2], b"", dict(request.headers.items()))
        return status, body

    assert told("GET", "/bucket/in/1", "") == (200, b"bytes")
    # The key and the signature of PostObject are in the form: see test_posts.py.
    beyond = [("/other", operation) for operation, name in router.ON_BUCKETS.items() if name != router.POST_OBJECT]
    beyond += [(path, operation) for path in ("/other/in/1", "/bucket/out") for operation in router.ON_OBJECTS]
    for path, (method, parameter) in beyond:
        status, body = told(method, path, parameter)
        assert status == 403 and (method == "HEAD" or b"<Code>AccessDenied</Code>" in body), (path, method, parameter)
    assert owner.list_objects_v2(Bucket="other")["KeyCount"] == 2


def test_presigned_addresses(s3_keys: Make) -> None:
    _, s3 = s3_keys()
    s3.create_bucket(Bucket="bucket")

    def uri(operation: str, seconds: int = 60) -> str:
        address: str = s3.generate_presigned_url(operation, {"Bucket": "bucket", "Key": "a b"}, ExpiresIn=seconds)
        return address.partition(HOST)[2]

    assert ask("PUT", uri("put_object"), b"bytes")[0] == 200
    assert ask("GET", uri("get_object"))[2] == b"bytes"
    assert ask("GET", uri("put_object"))[0] == 403
    assert ask("GET", uri("get_object") + "&response-content-type=text/html")[0] == 403
    assert ask("GET", uri("get_object", 604801))[0] == 400


def test_old_signatures_are_refused(s3_keys: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    _, s3 = s3_keys()
    s3.create_bucket(Bucket="bucket")
    address = s3.generate_presigned_url("list_objects_v2", {"Bucket": "bucket"}, ExpiresIn=3600).partition(HOST)[2]
    assert ask("GET", address)[0] == 200

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Later:
            return cls.fromtimestamp(time.time() + 3660, tz)

    monkeypatch.setattr(authentication, "datetime", Later)
    status, _, body = ask("GET", address)
    assert (status, b"Request has expired" in body) == (403, True)
    refused("RequestTimeTooSkewed", 403, s3.list_buckets)


def test_the_rate_is_limited(s3_keys: Make, settings: Any) -> None:
    _, s3 = s3_keys()
    settings.OCC = dataclasses.replace(settings.OCC, rate_limit="3/minute")
    for _ in range(3):
        s3.list_buckets()
    answer = refused("SlowDown", 503, s3.list_buckets)
    assert answer["ResponseMetadata"]["HTTPHeaders"]["retry-after"]
