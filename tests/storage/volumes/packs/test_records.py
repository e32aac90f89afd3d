from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.volumes.packs import records
from storage.volumes.packs.records import BLOCK, DATA, Codec, Header, State

STORED = st.binary(min_size=1, max_size=3 * BLOCK)
VOLUME = records.fingerprint("cluster", "node")


@given(STORED, st.sampled_from(Codec), st.integers(0, 1 << 40))
def test_a_record_says_what_was_written_and_ends_at_a_block(stored: bytes, codec: Codec, size: int) -> None:
    chunk_hash = hashlib.sha256(stored).hexdigest()
    record = b"".join(records.encode(chunk_hash, codec, stored, size))
    header = records.decode(record)
    assert header is not None
    assert (header.chunk_hash, header.codec, header.stored, header.size) == (chunk_hash, codec, len(stored), size)
    assert len(record) == header.span == records.span(len(stored))
    assert len(record) % BLOCK == 0
    assert record[DATA : DATA + len(stored)] == stored
    assert records.decode_mark(record) == (State.LIVE, "")


@given(st.integers(0, 63), st.integers(0, 7))
def test_a_header_with_a_flipped_bit_is_none(byte: int, bit: int) -> None:
    record = bytearray(b"".join(records.encode("ab" * 32, Codec.RAW, b"bytes", 5)))
    record[byte] ^= 1 << bit
    assert records.decode(bytes(record)) is None


@pytest.mark.parametrize("length", range(64))
def test_a_header_that_was_cut_is_none(length: int) -> None:
    assert records.decode(b"".join(records.encode("ab" * 32, Codec.RAW, b"bytes", 5))[:length]) is None


@given(st.sampled_from(State), st.text("0123456789abcdef", max_size=56))
def test_a_mark_says_state_and_token(state: State, token: str) -> None:
    mark = records.encode_mark(state, token)
    assert mark is not None
    assert records.decode_mark(bytes(records.MARK_OFFSET) + mark) == (state, token)
    assert records.decode_mark(bytes(records.MARK_OFFSET) + mark[:-1] + bytes([mark[-1] ^ 1])) == (State.LIVE, "")


def test_a_token_that_is_too_long_has_no_mark() -> None:
    assert records.encode_mark(State.TRASHED, "7" * 57) is None


def test_a_pack_names_its_volume() -> None:
    block = records.pack_block(VOLUME)
    assert len(block) == BLOCK
    assert records.pack_volume(block) == VOLUME
    assert records.pack_volume(block[:1] + b"?" + block[2:]) is None
    assert records.fingerprint("cluster", "another node") != VOLUME


def test_an_unknown_codec_is_no_header() -> None:
    record = b"".join(records.encode("ab" * 32, 7, b"bytes", 5))  # type: ignore[arg-type]
    assert records.decode(record) is None
    assert isinstance(records.decode(b"".join(records.encode("ab" * 32, Codec.RAW, b"bytes", 5))), Header)
