from __future__ import annotations

import base64

import pytest
from botocore.httpchecksum import Crc32Checksum, Sha1Checksum, Sha256Checksum
from hypothesis import given
from hypothesis import strategies as st

from storage.s3 import checksums
from storage.s3.errors import S3Error

# The check values of these algorithms for "123456789", from the catalogue of parametrised CRC algorithms.
CHECKS = {"CRC32": "cbf43926", "CRC32C": "e3069283", "CRC64NVME": "ae8b14860a799888"}
NAMES = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]


def of(name: str, *pieces: bytes) -> bytes:
    checksum = checksums.begin(name)
    for piece in pieces:
        checksum.update(piece)
    return checksum.digest()


@pytest.mark.parametrize(("name", "value"), CHECKS.items())
def test_the_check_values(name: str, value: str) -> None:
    assert of(name, b"1234", b"56789").hex() == value


@pytest.mark.parametrize(
    ("name", "oracle"), [("CRC32", Crc32Checksum), ("SHA1", Sha1Checksum), ("SHA256", Sha256Checksum)]
)
def test_they_are_those_of_botocore(name: str, oracle: type) -> None:
    theirs = oracle()
    theirs.update(b"some bytes")
    assert checksums.encode(of(name, b"some", b" bytes")) == theirs.b64digest()


@given(parts=st.lists(st.binary(max_size=50), min_size=1, max_size=6))
@pytest.mark.parametrize("name", CHECKS)
def test_the_checksums_of_parts_give_that_of_the_whole(name: str, parts: list[bytes]) -> None:
    joined = checksums.joined(name, [(of(name, part), len(part)) for part in parts])
    assert joined == checksums.encode(of(name, b"".join(parts)))


def test_a_composite_is_the_checksum_of_the_checksums() -> None:
    values = [of("SHA256", b"one"), of("SHA256", b"two")]
    assert checksums.composite("SHA256", values) == base64.b64encode(of("SHA256", *values)).decode() + "-2"


@pytest.mark.parametrize("name", NAMES)
def test_the_fields(name: str) -> None:
    assert checksums.of_field(checksums.field_of(name)) == name
    assert checksums.decode(name, checksums.encode(of(name, b"x"))) == of(name, b"x")
    with pytest.raises(S3Error):
        checksums.decode(name, "AAA=")


def test_what_is_no_algorithm() -> None:
    assert checksums.of_field("x-amz-checksum-mode") is None
    assert checksums.of_field("x-amz-meta-crc32") is None
    with pytest.raises(S3Error):
        checksums.algorithm("MD4")


@pytest.mark.parametrize(
    ("name", "wanted", "kind"),
    [("CRC32", None, "COMPOSITE"), ("CRC32", "FULL_OBJECT", "FULL_OBJECT"), ("CRC64NVME", None, "FULL_OBJECT")],
)
def test_the_kinds(name: str, wanted: str | None, kind: str) -> None:
    assert checksums.kind_of(name, wanted) == kind


@pytest.mark.parametrize(("name", "wanted"), [("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE"), ("CRC32", "X")])
def test_impossible_kinds_are_refused(name: str, wanted: str) -> None:
    with pytest.raises(S3Error):
        checksums.kind_of(name, wanted)
