"""Signatures of version 2, compared with those of botocore, which stands for every client."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from botocore.auth import HmacV1Auth, HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from storage.s3 import addresses
from storage.s3.errors import S3Error
from storage.s3.signatures import canonical
from storage.s3.signatures.reading import claimed
from storage.s3.signatures.version2 import Version2
from tests.support.cluster import content_of
from tests.support.posts import code_of, post
from tests.support.s3 import HOST, ask, client_of, environ_of, refused

KEY, SECRET = "OCCEXAMPLEEXAMPLE000", "Secret" * 6
Make = Callable[..., Any]
keys = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
HARD = ["a b", "a+b", "a%2Fb", "a//b", "~x", "é", "a&b=c", "a?acl#c", "'(!*)'", "%"]


def in_header(path: str = "/bucket/key", method: str = "PUT", **headers: str) -> AWSRequest:
    request = AWSRequest(method, f"http://{HOST}{path}", headers=headers)
    HmacV1Auth(Credentials(KEY, SECRET)).add_auth(request)
    return request


def in_query(path: str = "/bucket/key", method: str = "GET", **headers: str) -> AWSRequest:
    request = AWSRequest(method, f"http://{HOST}{path}", headers=headers)
    HmacV1QueryAuth(Credentials(KEY, SECRET), expires=60).add_auth(request)
    return AWSRequest(method, request.url)


def check(environ: dict[str, Any], secret: str = SECRET, domain: str = "") -> Version2:
    claim = claimed(environ)
    assert isinstance(claim, Version2)
    claim.require_signature(
        environ, addresses.parse(environ["RAW_URI"], environ["HTTP_HOST"], domain), claim.key(secret)
    )
    return claim


def assert_refused(environ: dict[str, Any], code: str) -> None:
    with pytest.raises(S3Error) as caught:
        check(environ)
    assert caught.value.code == code


@pytest.mark.parametrize("signed", [in_header, in_query])
@pytest.mark.parametrize("key", HARD)
def test_it_agrees_with_botocore_on_hard_keys(signed: Callable[..., AWSRequest], key: str) -> None:
    fields = {"x-amz-meta-b": "two", "x-amz-meta-a_b": "one", "Content-Type": "text/plain"}
    claim = check(environ_of(signed(f"/bucket/{quote(key)}?prefix=x&partNumber=2&uploadId=a%2Bb", **fields)))
    assert claim.key_id == KEY


@given(key=keys)
def test_it_agrees_with_botocore_on_any_key(key: str) -> None:
    check(environ_of(in_header(f"/bucket/{quote(key)}")))
    value = quote("".join(character for character in key if character.isprintable()))
    check(environ_of(in_query(f"/bucket/{quote(key)}?response-content-type={value}")))


def test_a_bucket_in_the_host_is_signed() -> None:
    request = AWSRequest("GET", "http://bucket.s3.example/key", auth_path="/bucket/key")
    HmacV1Auth(Credentials(KEY, SECRET)).add_auth(request)
    environ = environ_of(request, "bucket.s3.example")
    check(environ, domain="s3.example")
    with pytest.raises(S3Error):
        check(environ | {"HTTP_HOST": "other.s3.example"}, domain="s3.example")


@pytest.mark.parametrize("signed", [in_header, in_query])
def test_another_secret_or_another_request_is_refused(signed: Callable[..., AWSRequest]) -> None:
    good = environ_of(signed(method="GET"))
    for change in (
        {"REQUEST_METHOD": "DELETE"},
        {"RAW_URI": good["RAW_URI"].replace("/bucket/key", "/bucket/kez")},
        {"RAW_URI": good["RAW_URI"] + ("&" if "?" in good["RAW_URI"] else "?") + "acl"},
        {"CONTENT_TYPE": "text/html"},
        {"HTTP_CONTENT_MD5": "x"},
        {"HTTP_X_AMZ_COPY_SOURCE": "/bucket/secret"},
        {"HTTP_X_AMZ_META_NOTE": "x"},
    ):
        assert_refused(good | change, "SignatureDoesNotMatch")
    with pytest.raises(S3Error):
        check(good, "Another" * 6)


@pytest.mark.parametrize("added", ["attributes", "%61cl", "session", "renameObject=x"])
def test_a_parameter_that_chooses_the_operation_is_signed(added: str) -> None:
    environ = environ_of(in_query("/bucket/key?acl"))
    environ["RAW_URI"] += f"&{added}"
    assert_refused(environ, "AccessDenied")


def test_two_parameters_cannot_become_one() -> None:
    """The address of one part of an upload must not become an address that replaces the object."""
    environ = environ_of(in_query("/bucket/key?partNumber=1&uploadId=x", "PUT"))
    environ["RAW_URI"] = environ["RAW_URI"].replace("partNumber=1&uploadId=x", "partNumber=1%26uploadId=x")
    assert_refused(environ, "AccessDenied")


def test_a_signed_parameter_comes_once() -> None:
    environ = environ_of(in_query("/bucket/key?uploadId=x"))
    environ["RAW_URI"] += "&%75ploadId=y"
    assert_refused(environ, "AccessDenied")


@pytest.mark.parametrize("name", ["response-content-type", "versionId"])
def test_a_line_cannot_move_into_the_query(name: str) -> None:
    """A person who may choose the Content-Type of a signed address must not be able to choose the key and expiry."""
    key, end = "/bucket/user/1", "9" * 10
    header = {"Content-Type": f"text/html\n{end}\n/bucket/victim?{name}=x"}
    environ = environ_of(in_query(key, "PUT", **header))
    ((expires, signature),) = [
        (parameters["Expires"][0], quote(parameters["Signature"][0]))
        for parameters in [parse_qs(environ["QUERY_STRING"])]
    ]
    moved = f"{name}=x%0A{expires}%0A{key}&AWSAccessKeyId={KEY}&Expires={end}&Signature={signature}"
    changed = {"RAW_URI": f"/bucket/victim?{moved}", "QUERY_STRING": moved, "CONTENT_TYPE": "text/html"}
    assert_refused(environ | changed, "AccessDenied")


def test_a_value_of_an_answer_cannot_become_a_parameter() -> None:
    disposition = quote("attachment; filename=x&tagging")
    environ = environ_of(in_query(f"/bucket/key?response-content-disposition={disposition}"))
    check(environ)
    environ["RAW_URI"] = environ["RAW_URI"].replace("%26tagging", "&tagging")
    assert_refused(environ, "AccessDenied")


@pytest.mark.parametrize("name", ["X-Amz-%6deta-Note", "x-amz-meta%2dnote", "x-amz-content%2Dsha256"])
def test_a_name_with_an_escape_is_another_name(name: str) -> None:
    environ = environ_of(in_query(method="PUT", **{"x-amz-meta-note": "good", "x-amz-content-sha256": "0" * 64}))
    check(environ)
    assert_refused(
        environ | {"HTTP_X_AMZ_META_NOTE": "evil", canonical.variable(name): "good"}, "SignatureDoesNotMatch"
    )


@pytest.mark.parametrize(("signed", "sent"), [("uploads", "uploads="), ("uploads=", "uploads=")])
def test_a_parameter_without_a_value_may_have_an_equals_sign(signed: str, sent: str) -> None:
    environ = environ_of(in_header(f"/bucket/key?{signed}", "POST"))
    check(environ | {"RAW_URI": f"/bucket/key?{sent}"})


def test_a_plus_is_signed_as_what_it_means() -> None:
    environ = environ_of(in_query("/bucket/key?response-content-type=a%20b"))
    check(environ | {"RAW_URI": environ["RAW_URI"].replace("a%20b", "a+b")})
    environ = environ_of(in_query("/bucket/key?response-content-type=a%2Bb"))
    assert_refused(environ | {"RAW_URI": environ["RAW_URI"].replace("a%2Bb", "a+b")}, "SignatureDoesNotMatch")


def test_a_client_may_sign_both_dates() -> None:
    check(environ_of(in_header(**{"x-amz-date": format_datetime(datetime.now(UTC))})))


def test_two_header_fields_cannot_become_one() -> None:
    environ = environ_of(in_query(**{"x-amz-meta-a": "1", "x-amz-meta-b": "2"}))
    for name in ("RAW_URI", "QUERY_STRING"):
        environ[name] = environ[name].replace("&x-amz-meta-b=2", "").replace("-a=1", "-a=1%0Ax-amz-meta-b%3A2")
    assert_refused(environ, "AccessDenied")


def test_an_address_cannot_choose_the_source_of_a_copy() -> None:
    assert_refused(environ_of(in_query(method="PUT", **{"x-amz-copy-source": "/bucket/other"})), "AccessDenied")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [("AWS", "InvalidArgument"), ("AWS key", "InvalidArgument"), ("AWS key:", "InvalidArgument")],
)
def test_a_malformed_authorization_is_refused(authorization: str, code: str) -> None:
    assert_refused(environ_of(in_header()) | {"HTTP_AUTHORIZATION": authorization}, code)


@pytest.mark.parametrize("name", ["HTTP_DATE", "HTTP_X_AMZ_DATE"])
@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 31 Dec 9999 23:59:59 -1400", "Tue, 07 Jul 1950 21:53:04 GMT"])
def test_a_malformed_date_is_refused(date: str, name: str) -> None:
    assert_refused(environ_of(in_header()) | {name: date}, "AccessDenied")


@pytest.mark.parametrize("form", [format_datetime, lambda moment: moment.strftime("%Y%m%dT%H%M%SZ")])
def test_a_client_may_sign_a_date_of_its_own(form: Callable[[datetime], str]) -> None:
    moment = datetime.now(UTC).replace(microsecond=0)
    request = AWSRequest("PUT", f"http://{HOST}/bucket/key", headers={"x-amz-date": form(moment)})
    signer = HmacV1Auth(Credentials(KEY, SECRET))
    signer._get_date = lambda: ""
    signer.add_auth(request)
    assert check(environ_of(request)).time == moment


def test_signed_chunks_need_version_4() -> None:
    request = in_header(**{"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"})
    assert_refused(environ_of(request), "InvalidRequest")


def test_clocks_may_differ_by_a_quarter_of_an_hour() -> None:
    claim = check(environ_of(in_header()))
    for minutes in (-15, 0, 15):
        claim.require_time(claim.time + timedelta(minutes=minutes))
    for minutes in (-16, 16):
        with pytest.raises(S3Error) as caught:
            claim.require_time(claim.time + timedelta(minutes=minutes))
        assert caught.value.code == "RequestTimeTooSkewed"


def test_a_presigned_address_expires() -> None:
    environ = environ_of(in_query())
    claim = check(environ)
    claim.require_time(claim.time)
    with pytest.raises(S3Error) as caught:
        claim.require_time(claim.time + timedelta(seconds=1))
    assert caught.value.code == "AccessDenied"
    for expires in ("", "x", "-1", "9" * 12):
        number = parse_qs(environ["QUERY_STRING"])["Expires"][0]
        changed = environ["QUERY_STRING"].replace(f"Expires={number}", f"Expires={expires}")
        assert_refused(environ | {"QUERY_STRING": changed}, "AccessDenied")


def test_one_signature_is_enough() -> None:
    environ = environ_of(in_query()) | {"HTTP_AUTHORIZATION": "AWS key:signature"}
    assert_refused(environ, "InvalidArgument")


# -- at the door ------------------------------------------------------------


@pytest.fixture
def old(s3_keys: Make) -> Any:
    """A client that signs by version 2, whose owner has the bucket ``bucket``."""
    made, new = s3_keys()
    new.create_bucket(Bucket="bucket")
    return client_of(made.key.pk, made.secret, signature_version="s3")


def test_a_client_works_with_version_2(old: Any) -> None:
    data = content_of(3)
    old.put_object(Bucket="bucket", Key="a b/é.txt", Body=data, Metadata={"note": "x"})
    found = old.get_object(Bucket="bucket", Key="a b/é.txt", ResponseContentType="text/html; a=b+c")
    assert (found["Body"].read(), found["Metadata"], found["ContentType"]) == (data, {"note": "x"}, "text/html; a=b+c")
    assert old.list_objects_v2(Bucket="bucket", Prefix="a b/")["KeyCount"] == 1
    upload = old.create_multipart_upload(Bucket="bucket", Key="large")["UploadId"]
    part = old.upload_part(Bucket="bucket", Key="large", UploadId=upload, PartNumber=1, Body=data)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    old.complete_multipart_upload(Bucket="bucket", Key="large", UploadId=upload, MultipartUpload=parts)
    old.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "large"}, {"Key": "a b/é.txt"}]})
    assert old.list_objects_v2(Bucket="bucket")["KeyCount"] == 0


def test_another_secret_is_refused_at_the_door(s3_keys: Make, old: Any) -> None:
    made, _ = s3_keys()
    stranger = client_of(made.key.pk, "x" * 40, signature_version="s3")
    refused("SignatureDoesNotMatch", 403, stranger.list_objects_v2, Bucket="bucket")


def test_a_presigned_address_stores_what_it_says(old: Any) -> None:
    about = {"Bucket": "bucket", "Key": "key", "ContentType": "text/x-note", "Metadata": {"note": "a b"}}
    url = urlsplit(old.generate_presigned_url("put_object", Params=about))
    assert "AWSAccessKeyId" in url.query
    assert ask("PUT", f"{url.path}?{url.query}", b"bytes")[0] == 200
    found = old.get_object(Bucket="bucket", Key="key")
    assert (found["ContentType"], found["Metadata"]) == ("text/x-note", {"note": "a b"})
    assert ask("PUT", f"{url.path}?{url.query}", b"bytes", {"Content-Type": "text/html"})[0] == 403
    assert ask("GET", f"{url.path}?{url.query}")[0] == 403
    get = urlsplit(old.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"}))
    assert ask("GET", f"{get.path}?{get.query}")[2] == b"bytes"
    ended = urlsplit(old.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"}, ExpiresIn=-1))
    assert ask("GET", f"{ended.path}?{ended.query}")[0] == 403


def test_a_presigned_form_stores_its_file(old: Any) -> None:
    fields = old.generate_presigned_post("bucket", "user/${filename}")["fields"]
    assert "AWSAccessKeyId" in fields
    assert post(fields)[0] == 204
    assert old.get_object(Bucket="bucket", Key="user/cat.jpg")["Body"].read() == b"bytes"
    for change, refusal in (
        ({"signature": "x"}, (403, "SignatureDoesNotMatch")),
        ({"policy": fields["policy"] + " "}, (403, "SignatureDoesNotMatch")),
        ({"key": "other/cat.jpg"}, (403, "AccessDenied")),
        ({"AWSAccessKeyId": "x"}, (403, "InvalidAccessKeyId")),
        ({"signature": ""}, (400, "InvalidArgument")),
    ):
        assert code_of(post({**fields, **change})) == refusal, change
