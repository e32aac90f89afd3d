"""Signatures, compared with those of botocore, which stands for every client."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.utils import percent_encode
from hypothesis import given
from hypothesis import strategies as st

from storage.s3 import addresses
from storage.s3.errors import S3Error
from storage.s3.signatures import canonical
from storage.s3.signatures.reading import claimed
from storage.s3.signatures.version4 import Version4
from tests.support.s3 import HOST, environ_of

KEY, SECRET = "OCCEXAMPLEEXAMPLE000", "Secret" * 6
HARD = [
    "a b",
    "a+b",
    "a%2Fb",
    "a//b",
    "~x",
    "é",
    "😀",
    "a&b=c",
    "a?b#c",
    "'(!*)'",
    "a;b,c:@$",
    "ü" * 512,
    "%",
    "a/../b",
]
keys = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


def in_header(key: str, region: str = "occ", **parameters: str) -> AWSRequest:
    request = AWSRequest("PUT", f"http://{HOST}/bucket/{quoted(key)}", params=parameters, data=b"bytes")
    request.headers["x-amz-meta-note"] = "two  spaces "
    request.headers["x-amz-meta-a_note%"] = "another"
    S3SigV4Auth(Credentials(KEY, SECRET), "s3", region).add_auth(request)
    return request


def in_query(key: str, expires: int = 3600, **parameters: str) -> AWSRequest:
    request = AWSRequest("GET", f"http://{HOST}/bucket/{quoted(key)}", params=parameters)
    S3SigV4QueryAuth(Credentials(KEY, SECRET), "s3", "occ", expires=expires).add_auth(request)
    return request


def quoted(key: str) -> str:
    return str(percent_encode(key, safe="/~"))


def check(environ: dict[str, Any], secret: str = SECRET) -> Version4:
    claim = claimed(environ)
    assert isinstance(claim, Version4)
    claim.require_signature(environ, addresses.parse(environ["RAW_URI"], HOST, ""), claim.key(secret))
    return claim


@pytest.mark.parametrize("signed", [in_header, in_query])
@pytest.mark.parametrize("key", HARD)
def test_it_agrees_with_botocore_on_hard_keys(signed: Callable[..., AWSRequest], key: str) -> None:
    environ = environ_of(signed(key, prefix="a b/+%é", **{"list-type": "2", "delimiter": ""}))
    claim = check(environ)
    assert claim.key_id == KEY
    assert unquote_to_bytes(environ["RAW_URI"].partition("?")[0]).decode() == f"/bucket/{key}"


@given(key=keys, value=keys)
def test_it_agrees_with_botocore_on_any_key(key: str, value: str) -> None:
    check(environ_of(in_header(key, prefix=value)))
    check(environ_of(in_query(key, prefix=value)))


@pytest.mark.parametrize("region", ["occ", "us-east-1", "auto", "eu-central-1"])
def test_any_region_will_do(region: str) -> None:
    assert check(environ_of(in_header("key", region))).region == region


@pytest.mark.parametrize("signed", [in_header, in_query])
def test_another_secret_or_another_request_is_refused(signed: Callable[..., AWSRequest]) -> None:
    good = environ_of(signed("key"))
    for change in (
        {"REQUEST_METHOD": "DELETE"},
        {"RAW_URI": good["RAW_URI"].replace("/bucket/key", "/bucket/kez")},
        {"RAW_URI": good["RAW_URI"] + ("&" if "?" in good["RAW_URI"] else "?") + "acl"},
        {"HTTP_HOST": "other.example"},
    ):
        with pytest.raises(S3Error) as caught:
            check(good | change)
        assert caught.value.code == "SignatureDoesNotMatch"
    with pytest.raises(S3Error):
        check(good, "Another" * 6)


@pytest.mark.parametrize("signed", [in_header, in_query])
def test_a_field_with_a_meaning_must_be_signed(signed: Callable[..., AWSRequest]) -> None:
    environ = environ_of(signed("key")) | {"HTTP_X_AMZ_COPY_SOURCE": "/bucket/secret"}
    with pytest.raises(S3Error) as caught:
        check(environ)
    assert caught.value.code == "AccessDenied"


def test_a_client_may_leave_a_character_as_it_is() -> None:
    """A client may send a character as it is, and sign it as S3 encodes it."""
    environ = environ_of(in_header("a+b!c"))
    environ["RAW_URI"] = "/bucket/a+b!c"
    check(environ)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("AWS4-HMAC-SHA256 Credential=x", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0", "AuthorizationHeaderMalformed"),
        ("AWS4-ECDSA-P256-SHA256 Credential=x", "InvalidRequest"),
        ("Bearer key:secret", "InvalidArgument"),
        ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
    ],
)
def test_a_malformed_authorization_is_refused(authorization: str, code: str) -> None:
    environ = {"HTTP_AUTHORIZATION": authorization, "HTTP_X_AMZ_CONTENT_SHA256": "UNSIGNED-PAYLOAD"}
    with pytest.raises(S3Error) as caught:
        claimed(environ)
    assert caught.value.code == code


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 31 Dec 9999 23:59:59 -1400"])
def test_a_malformed_date_is_refused(date: str) -> None:
    environ = environ_of(in_header("key")) | {"HTTP_DATE": date}
    del environ["HTTP_X_AMZ_DATE"]
    with pytest.raises(S3Error) as caught:
        claimed(environ)
    assert caught.value.code == "AccessDenied"


@pytest.mark.parametrize("added", ["%3B%F0%9F%98%80", "&X-Amz-Content-Sha256=%F0%9F%98%80"])
def test_a_claim_of_any_characters_is_no_defect(added: str) -> None:
    environ = environ_of(in_query("key"))
    environ["QUERY_STRING"] = environ["QUERY_STRING"].replace("SignedHeaders=host", f"SignedHeaders=host{added}")
    with pytest.raises(S3Error) as caught:
        check(environ)
    assert caught.value.code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("expires", ["0", "-1", "604801", "x", "٣"])
def test_a_presigned_address_is_good_for_a_week_at_most(expires: str) -> None:
    environ = environ_of(in_query("key"))
    environ["QUERY_STRING"] = environ["QUERY_STRING"].replace("X-Amz-Expires=3600", f"X-Amz-Expires={expires}")
    with pytest.raises(S3Error) as caught:
        claimed(environ)
    assert caught.value.code == "AuthorizationQueryParametersError"


def test_clocks_may_differ_by_a_quarter_of_an_hour() -> None:
    claim = check(environ_of(in_header("key")))
    signed_at = datetime.strptime(claim.time, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    for minutes in (-15, 0, 15):
        claim.require_time(signed_at + timedelta(minutes=minutes))
    for minutes in (-16, 16):
        with pytest.raises(S3Error) as caught:
            claim.require_time(signed_at + timedelta(minutes=minutes))
        assert caught.value.code == "RequestTimeTooSkewed"


def test_a_presigned_address_expires() -> None:
    claim = check(environ_of(in_query("key", expires=60)))
    signed_at = datetime.strptime(claim.time, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    claim.require_time(signed_at + timedelta(seconds=60))
    for seconds in (61, -3600):
        with pytest.raises(S3Error) as caught:
            claim.require_time(signed_at + timedelta(seconds=seconds))
        assert caught.value.code == "AccessDenied"


def test_no_signature_is_no_claim() -> None:
    assert claimed({"QUERY_STRING": "list-type=2"}) is None


def test_the_chain_of_the_example_in_the_reference() -> None:
    """The example "Transferring Payload in Multiple Chunks" of the Amazon S3 API Reference."""
    seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    claim = Version4("AKIAIOSFODNN7EXAMPLE", seed, "", "20130524", "us-east-1", "20130524T000000Z")
    chain = claim.chain(claim.key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))
    for signature, data in (
        ("ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648", b"a" * 65536),
        ("0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497", b"a" * 1024),
        ("b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9", b""),
    ):
        chain.require_chunk(signature, hashlib.sha256(data).hexdigest())
    with pytest.raises(S3Error):
        chain.require_chunk("0" * 64, canonical.EMPTY)
