from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.s3.addresses import Address, parse, require_bucket_name, require_key
from storage.s3.errors import S3Error

keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)


@given(key=keys)
def test_every_key_survives_its_address(key: str) -> None:
    found = parse(f"/bucket/{quote(key, safe='/')}?x=1", "localhost:5005", "")
    assert (found.bucket, found.key, found.query) == ("bucket", key, "x=1")
    hosted = parse(f"/{quote(key, safe='')}", "bucket.s3.example:5005", "s3.example")
    assert (hosted.bucket, hosted.key) == ("bucket", key)


@pytest.mark.parametrize(
    ("uri", "host", "bucket", "key"),
    [
        ("/", "localhost", "", ""),
        ("/b", "localhost", "b", ""),
        ("/b/", "localhost", "b", ""),
        ("/b//k/", "localhost", "b", "/k/"),
        ("/b/a%2Fb", "localhost", "b", "a/b"),
        ("/b/a+b", "localhost", "b", "a+b"),
        ("http://localhost/b/k", "localhost", "b", "k"),
        ("/", "my.bucket.S3.example", "my.bucket", ""),
        ("/b/k", "s3.example", "b", "k"),
        ("/b/k", "[::1]:5005", "b", "k"),
    ],
)
def test_addresses(uri: str, host: str, bucket: str, key: str) -> None:
    path, _, query = uri.removeprefix("http://localhost").partition("?")
    is_of_host = host == "my.bucket.S3.example"
    assert parse(uri, host, "s3.example") == Address(bucket, key, path, query, is_of_host)


@pytest.mark.parametrize(("uri", "code"), [("/b%2Fk", "InvalidBucketName"), ("b/k", "InvalidURI")])
def test_a_path_has_one_meaning(uri: str, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse(uri, "localhost", "")
    assert caught.value.code == code


def test_what_is_not_utf8_is_refused() -> None:
    with pytest.raises(S3Error) as caught:
        parse("/bucket/%ff", "localhost", "")
    assert caught.value.code == "InvalidURI"


@pytest.mark.parametrize("name", ["abc", "a" * 63, "1.2.3", "my-bucket.example", "0ab"])
def test_good_names_of_buckets(name: str) -> None:
    require_bucket_name(name)


BAD = [
    "ab",
    "a" * 64,
    "Abc",
    "a_b",
    "a..b",
    "a.-b",
    "a-.b",
    "-ab",
    "ab-",
    ".ab",
    "192.168.1.1",
    "xn--abc",
    "abc-s3alias",
    "a b",
    "äbc",
    "",
]


@pytest.mark.parametrize("name", BAD)
def test_bad_names_of_buckets(name: str) -> None:
    with pytest.raises(S3Error) as caught:
        require_bucket_name(name)
    assert caught.value.code == "InvalidBucketName"


def test_keys() -> None:
    require_key("ü" * 512)
    for key, code in (("ü" * 513, "KeyTooLongError"), ("a\0b", "InvalidArgument")):
        with pytest.raises(S3Error) as caught:
            require_key(key)
        assert caught.value.code == code
