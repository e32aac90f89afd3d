from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.volumes.packs import codecs
from storage.volumes.packs.codecs import Compressor, expand
from storage.volumes.packs.records import Codec

WORDS = b"the same words again and again, " * 8192
NOISE = os.urandom(len(WORDS))


@given(st.binary(max_size=5000) | st.binary(max_size=50).map(lambda data: 100 * data))
def test_what_is_stored_expands_to_what_was_given(data: bytes) -> None:
    codec, stored = Compressor().shrink("name", data)
    assert len(stored) <= len(data)
    assert expand(codec, stored, len(data)) == data


def test_words_shrink_and_noise_is_stored_as_it_is() -> None:
    codec, stored = Compressor().shrink("words", WORDS)
    assert (codec, len(stored) < len(WORDS) / 100) == (Codec.ZSTD, True)
    assert Compressor().shrink("noise", NOISE) == (Codec.RAW, NOISE)


def test_noise_is_given_up_after_a_look_at_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    compressor = codecs._compressor()

    class Watched:
        def compress(self, data: bytes) -> bytes:
            looked.append(len(data))
            return compressor.compress(data)

    monkeypatch.setattr(codecs, "_compressor", Watched)
    Compressor().shrink("noise", NOISE)
    assert looked == [codecs.SAMPLE * codecs.SAMPLES]


def test_a_saving_below_a_tenth_is_not_worth_it() -> None:
    data = NOISE[:3800] + bytes(200)
    assert Compressor().shrink("name", data) == (Codec.RAW, data)


def test_a_chunk_is_compressed_once_for_all_its_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    shrink, all_here = codecs._shrink, threading.Barrier(3)

    def counted(data: bytes) -> tuple[Codec, bytes]:
        calls.append(1)
        return shrink(data)

    def ask(_: int) -> tuple[Codec, bytes]:
        all_here.wait(10)
        return compressor.shrink("words", WORDS)

    monkeypatch.setattr(codecs, "_shrink", counted)
    compressor = Compressor()
    with ThreadPoolExecutor(3) as pool:
        answers = set(pool.map(ask, range(3)))
    assert (len(answers), len(calls)) == (1, 1)


def test_memory_for_compressed_chunks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "REMEMBERED", 3 * len(NOISE))
    compressor = Compressor()
    for number in range(10):
        compressor.shrink(str(number), NOISE)
    assert compressor._bytes <= 3 * len(NOISE)
    assert len(compressor._done) == 3


@pytest.mark.parametrize("size", [0, len(WORDS) - 1, 1 << 60])
def test_memory_is_taken_for_the_size_in_the_header_only(size: int) -> None:
    _, stored = Compressor().shrink("words", WORDS)
    assert expand(Codec.ZSTD, stored, size) == stored


@given(st.integers(0, 100), st.binary(min_size=1, max_size=20))
def test_damaged_bytes_are_returned_and_raise_nothing(place: int, damage: bytes) -> None:
    _, stored = Compressor().shrink("words", WORDS)
    damaged = stored[:place] + damage + stored[place + len(damage) :]
    assert isinstance(expand(Codec.ZSTD, damaged, len(WORDS)), bytes)
