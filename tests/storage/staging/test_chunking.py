from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.exceptions import StagingDamaged
from storage.staging.cutting import chunk_count, cut
from storage.staging.pieces import PieceChecksums, read_pieces


def checksums(data: bytes, piece_size: int, step: int) -> bytes:
    sums = PieceChecksums(piece_size)
    for start in range(0, len(data), step):
        sums.update(data[start : start + step])
    return sums.packed()


@given(st.binary(max_size=500), st.integers(1, 64), st.integers(1, 64), st.integers(1, 64))
def test_what_was_staged_is_cut_into_the_same_chunks_however_it_arrived(
    data: bytes, piece_size: int, chunk_size: int, step: int
) -> None:
    sums = checksums(data, piece_size, step)
    chunks = list(cut(read_pieces(io.BytesIO(data), range(len(data)), piece_size, sums), chunk_size))
    assert b"".join(chunks) == data
    assert len(chunks) == chunk_count(len(data), chunk_size)
    assert all(len(chunk) == chunk_size for chunk in chunks[:-1])


@given(st.binary(min_size=1, max_size=300), st.integers(1, 64), st.data())
def test_any_changed_byte_is_noticed(data: bytes, piece_size: int, draw: st.DataObject) -> None:
    sums = checksums(data, piece_size, 7)
    at = draw.draw(st.integers(0, len(data) - 1))
    damaged = data[:at] + bytes([data[at] ^ draw.draw(st.integers(1, 255))]) + data[at + 1 :]
    with pytest.raises(StagingDamaged):
        list(read_pieces(io.BytesIO(damaged), range(len(data)), piece_size, sums))


@pytest.mark.parametrize("kept", [0, 5, 10, 19])
def test_a_truncated_staged_file_is_noticed(kept: int) -> None:
    data = b"0123456789abcdefghij"
    with pytest.raises(StagingDamaged):
        list(read_pieces(io.BytesIO(data[:kept]), range(len(data)), 10, checksums(data, 10, 20)))


@given(st.binary(min_size=1, max_size=300), st.integers(1, 64), st.data())
def test_a_run_of_pieces_is_read_and_checked_by_itself(data: bytes, piece_size: int, draw: st.DataObject) -> None:
    sums = PieceChecksums(piece_size)
    sums.update(data)
    whole = len(data) // piece_size
    first = draw.draw(st.integers(0, whole))
    pieces = range(first, draw.draw(st.integers(first, whole)))
    span = range(pieces.start * piece_size, pieces.stop * piece_size)
    assert sums.of(pieces) == sums.packed()[4 * pieces.start : 4 * pieces.stop]
    read = read_pieces(io.BytesIO(data), span, piece_size, sums.of(pieces))
    assert b"".join(read) == data[span.start : span.stop]
