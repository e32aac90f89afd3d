from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.s3.chunked import ChunkedBody
from storage.s3.errors import S3Error
from storage.s3.signatures import canonical
from storage.s3.signatures.version4 import Version4

CLAIM = Version4("key", "0" * 64, "", "20260101", "occ", "20260101T000000Z")
SIGNING_KEY = CLAIM.key("secret")


def reader(data: bytes, step: int) -> Callable[[], bytes]:
    pieces = iter([data[start : start + step] for start in range(0, len(data), step)])
    return lambda: next(pieces, b"")


def encoded(data: bytes, size: int, trailer: bytes = b"") -> bytes:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailer + b"\r\n"


def signed(data: bytes, size: int, trailer: dict[str, str] | None = None) -> bytes:
    """A body with signatures, made step by step as Amazon's S3 API Reference describes it."""
    last, out = CLAIM.signature, b""
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    for piece in (*pieces, b""):
        text = "\n".join(
            (
                "AWS4-HMAC-SHA256-PAYLOAD",
                CLAIM.time,
                CLAIM.scope,
                last,
                canonical.EMPTY,
                hashlib.sha256(piece).hexdigest(),
            )
        )
        last = canonical.sign(SIGNING_KEY, text)
        out += b"%x;chunk-signature=%s\r\n" % (len(piece), last.encode())
        if piece:
            out += piece + b"\r\n"
    if trailer is not None:
        lines = "".join(f"{name}:{value}\n" for name, value in trailer.items())
        digest = hashlib.sha256(lines.encode()).hexdigest()
        text = "\n".join(("AWS4-HMAC-SHA256-TRAILER", CLAIM.time, CLAIM.scope, last, digest))
        out += lines.replace("\n", "\r\n").encode()
        out += f"x-amz-trailer-signature:{canonical.sign(SIGNING_KEY, text)}\r\n".encode()
    return out + b"\r\n"


@given(data=st.binary(max_size=300), size=st.integers(1, 100), step=st.integers(1, 120))
def test_any_body_is_decoded_whatever_its_pieces(data: bytes, size: int, step: int) -> None:
    body = ChunkedBody(reader(encoded(data, size, b"x-amz-checksum-crc32:AAAAAA==\r\n"), step), None, has_trailer=True)
    assert b"".join(body) == data
    assert body.trailer == {"x-amz-checksum-crc32": "AAAAAA=="}
    plain = ChunkedBody(reader(signed(data, size), step), CLAIM.chain(SIGNING_KEY), has_trailer=False)
    assert b"".join(plain) == data
    whole = signed(data, size, {"x-amz-checksum-sha256": "B" * 44})
    trailing = ChunkedBody(reader(whole, step), CLAIM.chain(SIGNING_KEY), has_trailer=True)
    assert b"".join(trailing) == data


@given(data=st.binary(min_size=1, max_size=200), position=st.integers(0, 10_000), change=st.integers(1, 255))
def test_no_changed_byte_passes_the_signatures(data: bytes, position: int, change: int) -> None:
    whole = bytearray(signed(data, 64, {"x-amz-checksum-crc32": "AAAAAA=="}))
    position %= len(whole)
    whole[position] ^= change
    body = ChunkedBody(reader(bytes(whole), 50), CLAIM.chain(SIGNING_KEY), has_trailer=True)
    try:
        decoded = b"".join(body)
    except S3Error:
        return
    assert decoded == data
    assert body.trailer == {"x-amz-checksum-crc32": "AAAAAA=="}


def test_signatures_that_nobody_can_check_are_skipped() -> None:
    body = ChunkedBody(reader(signed(b"bytes", 3), 7), None, has_trailer=False)
    assert b"".join(body) == b"bytes"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"5\r\nbyt",
        b"5\r\nbytes",
        b"5\r\nbytesX\r\n0\r\n\r\n",
        b"x\r\nbytes\r\n0\r\n\r\n",
        b"-5\r\nbytes\r\n0\r\n\r\n",
        b"11111111111111111\r\n",
        b"5" * 9000,
        b"0\r\nno field\r\n\r\n",
        b"0\r\n" + b"a:b\r\n" * 30 + b"\r\n",
    ],
)
def test_a_malformed_body_is_refused(data: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        list(ChunkedBody(reader(data, 3), None, has_trailer=True))
    assert caught.value.code == "IncompleteBody"
