"""Forms of browsers at the S3 door (PostObject), while keys are on. boto3 makes the fields of most of them."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from django.db import connection

from storage.api.wsgi import transfers
from storage.api.wsgi.transfers import on_behalf_of, transfer
from storage.models import Bucket, KeyLimit, Scope
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.posts import FORM, Slow, assert_nothing_left, body_of, code_of, post, presigned
from tests.support.quotas import limited
from tests.support.s3 import ask, client_of

Make = Callable[..., Any]


@pytest.fixture
def signing(s3_keys: Make) -> Any:
    """A client of an owner who has the bucket ``bucket``, while keys are on."""
    _, s3 = s3_keys()
    s3.create_bucket(Bucket="bucket")
    return s3


def test_a_presigned_form_stores_its_file(signing: Any) -> None:
    data = content_of(3)
    fields = presigned(signing, "user/${filename}")
    status, headers, body = post(fields, data)
    assert (status, body) == (204, b"")
    assert headers["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert headers["Location"] == "http://localhost:5005/bucket/user/cat.jpg"
    found = signing.get_object(Bucket="bucket", Key="user/cat.jpg")
    assert (found["Body"].read(), found["ContentType"]) == (data, "binary/octet-stream")


def test_with_keys_a_form_needs_a_signature(signing: Any, cluster: ClusterUnderTest) -> None:
    fields = presigned(signing)
    credential = fields["x-amz-credential"]
    without = {name: value for name, value in fields.items() if name != "policy"}
    old = {"AWSAccessKeyId": "x", "signature": "x", "key": "key"}
    forms: list[tuple[Mapping[str, str], tuple[int, str]]] = [
        ({"key": "key"}, (403, "AccessDenied")),
        (without, (403, "AccessDenied")),
        (old, (403, "AccessDenied")),
        ({**fields, "x-amz-signature": "0" * 64}, (403, "SignatureDoesNotMatch")),
        ({**fields, "x-amz-signature": "ü"}, (403, "SignatureDoesNotMatch")),
        ({**fields, "policy": fields["policy"] + " "}, (403, "SignatureDoesNotMatch")),
        ({**fields, "x-amz-credential": credential.replace("OCC", "XXX")}, (403, "InvalidAccessKeyId")),
        ({**fields, "x-amz-credential": credential.replace("/occ/", "/x/")}, (403, "SignatureDoesNotMatch")),
        ({**fields, "x-amz-credential": "x"}, (400, "InvalidArgument")),
        ({**fields, "x-amz-date": "20000101T000000Z"}, (400, "InvalidArgument")),
        ({**fields, "x-amz-date": "today"}, (403, "AccessDenied")),
        ({**fields, "x-amz-algorithm": "AWS4-ECDSA-P256-SHA256"}, (400, "InvalidRequest")),
        *[
            ({other: value for other, value in fields.items() if other != name}, (400, "InvalidArgument"))
            for name in ("x-amz-signature", "x-amz-credential", "x-amz-date", "x-amz-algorithm")
        ],
    ]  # fmt: skip
    for form, refusal in forms:
        assert code_of(post(form)) == refusal, form
    assert_nothing_left(cluster)


def test_a_policy_signed_with_the_secret_of_another_key_is_refused(
    s3_keys: Make, signing: Any, cluster: ClusterUnderTest
) -> None:
    made, _ = s3_keys()
    fields = presigned(client_of(made.key.pk, "x" * 40))
    assert code_of(post(fields)) == (403, "SignatureDoesNotMatch")
    assert_nothing_left(cluster)


def test_the_policy_decides(signing: Any, cluster: ClusterUnderTest) -> None:
    fields = presigned(signing, "user/${filename}", {"acl": "private"}, [{"acl": "private"}])
    for change in (
        {"key": "other/cat.jpg"},
        {"acl": "bucket-owner-read"},
        {"Content-Type": "text/html"},
        {"x-amz-meta-note": "1"},
        {"success_action_redirect": "https://evil.example"},
        {"x": "y"},
    ):
        assert code_of(post({**fields, **change})) == (403, "AccessDenied"), change
    signing.create_bucket(Bucket="other")
    assert code_of(post(fields, uri="/other")) == (403, "AccessDenied")
    assert_nothing_left(cluster)
    assert post({**fields, "x-ignore-note": "1"})[0] == 204


def test_an_expired_form_is_refused(signing: Any, cluster: ClusterUnderTest) -> None:
    fields = presigned(signing, ExpiresIn=-1)
    status, _, body = post(fields)
    assert (status, b"Policy expired" in body) == (403, True)
    assert_nothing_left(cluster)


@pytest.mark.parametrize("size", [2, 300_000], ids=["in memory", "staged"])
def test_the_size_is_limited(signing: Any, cluster: ClusterUnderTest, size: int) -> None:
    fields = presigned(signing, "key", conditions=[["content-length-range", size, size + 1]])
    status, _, body = post(fields, bytes(size + 2))
    assert (status, b"<Code>EntityTooLarge</Code>" in body) == (400, True)
    assert f"<MaxSizeAllowed>{size + 1}</MaxSizeAllowed>".encode() in body
    status, _, body = post(fields, bytes(size - 1))
    assert (status, b"<Code>EntityTooSmall</Code>" in body) == (400, True)
    assert f"<MinSizeAllowed>{size}</MinSizeAllowed>".encode() in body
    assert_nothing_left(cluster)
    assert [post(fields, bytes(number))[0] for number in (size, size + 1)] == [204, 204]


def test_what_the_key_allows_holds_for_forms(s3_keys: Make, signing: Any, cluster: ClusterUnderTest) -> None:
    _, reader = s3_keys(scopes=(Scope.READ, Scope.DELETE))
    assert code_of(post(presigned(reader))) == (403, "AccessDenied")
    _, limited = s3_keys(limit=KeyLimit("bucket", "in/"))
    assert code_of(post(presigned(limited, "out/${filename}"))) == (403, "AccessDenied")
    assert code_of(post(presigned(limited, "${filename}"), name="in")) == (403, "AccessDenied")
    _, ben = s3_keys("ben")
    assert code_of(post(presigned(ben))) == (403, "AccessDenied")
    assert_nothing_left(cluster)
    assert post(presigned(limited, "in/${filename}"))[0] == 204
    _, writer = s3_keys(scopes=(Scope.WRITE,))
    assert post(presigned(writer))[0] == 204


def test_limits_hold_for_forms(signing: Any, settings: Any, cluster: ClusterUnderTest) -> None:
    fields, owner = presigned(signing), Bucket.objects.get().owner
    limited(owner, max_bytes=1000)
    assert code_of(post(fields, bytes(1001))) == (507, "QuotaExceeded")
    limited(owner, max_files=0)
    assert code_of(post(fields)) == (507, "QuotaExceeded")
    limited(owner)
    settings.OCC = dataclasses.replace(settings.OCC, max_transfers_per_owner=1)
    with on_behalf_of(str(owner.pk)), transfer():
        assert code_of(post(fields)) == (503, "SlowDown")
    assert_nothing_left(cluster)
    settings.OCC = dataclasses.replace(settings.OCC, rate_limit="1/minute")
    assert [code_of(post(fields)) for _ in range(2)] == [(204, None), (503, "SlowDown")]


def test_a_quota_may_be_used_to_its_last_byte(signing: Any) -> None:
    """The fields and boundaries of a form do not count."""
    limited(Bucket.objects.get().owner, max_bytes=1000)
    assert post(presigned(signing), bytes(1000))[0] == 204


def test_nothing_is_staged_before_the_policy_is_checked(signing: Any, cluster: ClusterUnderTest, settings: Any) -> None:
    """The server reads the head of a forged form only, and takes no place of a transfer for it."""
    fields = {**presigned(signing), "x-amz-signature": "0" * 64}
    body = body_of(fields, bytes(2_000_000))
    held = set(transfers._thread.slots)  # An earlier test of this thread may have left a download open.
    read = []

    def look() -> None:
        assert_nothing_left(cluster)
        read.append(transfers._thread.slots - held)

    answer = ask("POST", "/bucket", Slow(body, look), FORM | {"Content-Length": str(len(body))})
    assert code_of(answer) == (403, "SignatureDoesNotMatch")
    assert 0 < len(read) <= len(body_of(fields, b"")) // 97 + 1
    assert not any(read)


def test_a_form_waits_without_a_connection_to_postgresql(signing: Any) -> None:
    held = []
    body = body_of(presigned(signing), b"bytes" * 50)
    slow = Slow(body, lambda: held.append(connection.connection is not None))
    assert ask("POST", "/bucket", slow, FORM | {"Content-Length": str(len(body))})[0] == 204
    assert len(held) > 10
    assert not any(held)


def test_an_amazon_example(signing: Any, s3_keys: Make) -> None:
    """A policy that is written and signed by hand, as the API Reference describes it, without the help of boto3."""
    made, _ = s3_keys()
    day = time.strftime("%Y%m%d", time.gmtime())
    credential = f"{made.key.pk}/{day}/us-east-1/s3/aws4_request"
    document = {
        "expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60)),
        "conditions": [
            {"bucket": "bucket"},
            ["starts-with", "$key", "user/user1/"],
            {"acl": "private"},
            {"success_action_redirect": "http://page.example/done.html"},
            ["starts-with", "$Content-Type", "image/"],
            {"x-amz-meta-uuid": "14365123651274"},
            ["starts-with", "$x-amz-meta-tag", ""],
            {"x-amz-credential": credential},
            {"x-amz-algorithm": "AWS4-HMAC-SHA256"},
            {"x-amz-date": f"{day}T000000Z"},
        ],
    }
    policy = base64.b64encode(json.dumps(document).encode()).decode()
    key = f"AWS4{made.secret}".encode()
    for part in (day, "us-east-1", "s3", "aws4_request", policy):
        key = hmac.digest(key, part.encode(), "sha256")
    fields = {
        "key": "user/user1/${filename}",
        "acl": "private",
        "success_action_redirect": "http://page.example/done.html",
        "Content-Type": "image/jpeg",
        "x-amz-meta-uuid": "14365123651274",
        "X-Amz-Credential": credential,
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Date": f"{day}T000000Z",
        "x-amz-meta-tag": "",
        "Policy": policy,
        "X-Amz-Signature": key.hex(),
    }
    status, headers, body = post(fields)
    assert (status, headers.get("Location", "").partition("?")[0]) == (303, "http://page.example/done.html"), body
    assert signing.get_object(Bucket="bucket", Key="user/user1/cat.jpg")["ContentType"] == "image/jpeg"
