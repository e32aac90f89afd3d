"""What the policy of a form allows."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from storage.s3 import policies
from storage.s3.errors import S3Error

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = "2026-01-01T00:00:01.000Z"
FIELDS = {"bucket": "b", "key": "user/cat.jpg", "content-type": "image/png, image/jpeg", "acl": "private"}
REST = [{"acl": "private"}, ["starts-with", "$Content-Type", ""]]


def encoded(document: Any) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.b64encode(text.encode()).decode()


def policy(*conditions: Any, expiration: Any = LATER) -> policies.Policy:
    return policies.parse(encoded({"expiration": expiration, "conditions": list(conditions)}))


@pytest.mark.parametrize(
    "conditions",
    [
        [{"bucket": "b"}, {"key": "user/cat.jpg"}],
        [{"BUCKET": "b"}, ["EQ", "$Key", "user/cat.jpg"]],
        [["eq", "$bucket", "b"], ["Starts-With", "$kEy", "user/"]],
        [{"bucket": "b"}, ["starts-with", "$key", ""], ["starts-with", "$content-type", "image/"]],
    ],
)
def test_what_a_policy_allows(conditions: list[Any]) -> None:
    names = ("x-ignore-me", "policy", "x-amz-signature", "awsaccesskeyid", "signature")
    ignored = dict.fromkeys(names, "x")
    policy(*conditions, *REST).require({**FIELDS, **ignored}, NOW)


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ([{"bucket": "other"}, {"key": "user/cat.jpg"}], "Policy Condition failed"),
        ([{"bucket": "b"}, {"key": "user/Cat.jpg"}], "Policy Condition failed"),
        ([{"bucket": "b"}, ["eq", "$key", "user/"]], "Policy Condition failed"),
        ([{"bucket": "b"}, ["starts-with", "$key", "cat"]], "Policy Condition failed"),
        ([{"bucket": "b"}, ["starts-with", "$key", ""], ["starts-with", "$x-amz-meta-a", ""]], "Condition failed"),
        ([{"bucket": "b"}, ["starts-with", "$key", ""], ["starts-with", "$content-type", "image/p"]], "failed"),
        ([{"key": "user/cat.jpg"}], "Extra input fields: bucket"),
        ([{"bucket": "b"}], "Extra input fields: key"),
    ],
)
def test_what_a_policy_does_not_allow(conditions: list[Any], reason: str) -> None:
    with pytest.raises(S3Error, match=reason) as caught:
        policy(*conditions, *REST).require(FIELDS, NOW)
    assert (caught.value.code, caught.value.status) == ("AccessDenied", 403)


def test_a_policy_expires() -> None:
    wanted = policy({"bucket": "b"}, ["starts-with", "$key", ""], *REST)
    wanted.require(FIELDS, NOW)
    with pytest.raises(S3Error, match="Policy expired"):
        wanted.require(FIELDS, datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC))


def test_several_ranges_hold_together() -> None:
    wanted = policy(["content-length-range", 1, 9], ["Content-Length-Range", "2", "10"])
    assert (wanted.least, wanted.most) == (2, 9)


def test_a_dollar_sign_can_be_escaped() -> None:
    text = '{"expiration": "2026-01-01T00:00:01Z", "conditions": [{"key": "\\$a"}, {"x": "\\\\$a"}]}'
    first, second = policies.parse(encoded(text)).conditions
    assert (first.value, second.value) == ("$a", "\\$a")


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{",
        "[" * 15_000,
        {"conditions": []},
        {"expiration": LATER},
        {"EXPIRATION": LATER, "conditions": []},
        {"expiration": LATER, "CONDITIONS": []},
        {"expiration": LATER, "conditions": {}},
        *[
            {"expiration": expiration, "conditions": []}
            for expiration in (1, None, "2026-01-01", "2026-01-01 00:00:00+00:00", "2026-13-01T00:00:00Z", LATER[:-1])
        ],
        *[
            {"expiration": LATER, "conditions": [condition]}
            for condition in (
                {},
                {"a": "1", "b": "2"},
                {"a": 1},
                [],
                "key",
                ["eq", "$key"],
                ["eq", "key", "x"],
                ["eq", "$key", 1],
                ["ends-with", "$key", "x"],
                [["eq"], "$key", "x"],
                ["content-length-range"],
                ["content-length-range", 1],
                ["content-length-range", -1, 1],
                ["content-length-range", 1.5, 2],
                ["content-length-range", True, 2],
                ["content-length-range", 1, "x"],
                ["content-length-range", 1, 10**18],
            )
        ],
    ],
)
def test_malformed_policies_are_refused(document: Any) -> None:
    with pytest.raises(S3Error) as caught:
        policies.parse(encoded(document))
    assert (caught.value.code, caught.value.status) == ("InvalidPolicyDocument", 400)


@pytest.mark.parametrize("text", ["?", "é", "/w==", encoded('{"expiration": NaN, "conditions": []}')])
def test_what_is_no_json_in_base64_is_refused(text: str) -> None:
    with pytest.raises(S3Error, match="Invalid JSON"):
        policies.parse(text)
