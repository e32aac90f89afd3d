from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.chunking import PieceChecksums, chunk_count, cut, read_ahead, read_pieces
from storage.exceptions import StagingDamaged
from tests.system.conftest import wait_until


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
    chunks = list(cut(read_pieces(io.BytesIO(data), len(data), piece_size, sums), chunk_size))
    assert b"".join(chunks) == data
    assert len(chunks) == chunk_count(len(data), chunk_size)
    assert all(len(chunk) == chunk_size for chunk in chunks[:-1])


@given(st.binary(min_size=1, max_size=300), st.integers(1, 64), st.data())
def test_any_changed_byte_is_noticed(data: bytes, piece_size: int, draw: st.DataObject) -> None:
    sums = checksums(data, piece_size, 7)
    at = draw.draw(st.integers(0, len(data) - 1))
    damaged = data[:at] + bytes([data[at] ^ draw.draw(st.integers(1, 255))]) + data[at + 1 :]
    with pytest.raises(StagingDamaged):
        list(read_pieces(io.BytesIO(damaged), len(data), piece_size, sums))


@pytest.mark.parametrize("kept", [0, 5, 10, 19])
def test_a_truncated_staged_file_is_noticed(kept: int) -> None:
    data = b"0123456789abcdefghij"
    with pytest.raises(StagingDamaged):
        list(read_pieces(io.BytesIO(data[:kept]), len(data), 10, checksums(data, 10, 20)))


def test_what_is_read_ahead_comes_in_order_and_no_further_than_allowed() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    ahead = read_ahead(items(), 3)
    assert next(ahead) == 0
    wait_until(lambda: len(made) == 5, 10)
    assert list(ahead) == list(range(1, 100))
    assert made == list(range(100)), "one was taken, three wait, and one is being handed over; then all of them"


def test_an_error_while_reading_ahead_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise StagingDamaged("the second")

    ahead = read_ahead(items(), 5)
    assert next(ahead) == 1
    with pytest.raises(StagingDamaged):
        next(ahead)


def test_closing_ends_the_reading() -> None:
    ended: list[bool] = []

    def items() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            ended.append(True)

    ahead = read_ahead(items(), 2)
    next(ahead)
    before = threading.active_count()
    ahead.close()  # type: ignore[attr-defined]  # a generator has it
    wait_until(lambda: threading.active_count() < before, 10)
    wait_until(lambda: ended == [True], 10)
