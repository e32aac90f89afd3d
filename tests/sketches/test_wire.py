import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketches.exceptions import CorruptSketch, IncompatibleSketches, SketchError
from sketches.wire import (
    HEADER_SIZE,
    MAX_N_PRIME,
    Header,
    decode,
    decode_header,
    encode,
    encode_header,
    lineage,
    seed_check,
)

SEED = 7
HEADER = Header(10, seed_check(SEED), 9, 20, 2**64 - 1, bytes(range(16)), bytes(range(20)))
REGISTERS = np.arange(20, dtype=np.uint8) // 3
SKETCH = encode(HEADER, REGISTERS)


def resealed(offset: int, fields: bytes) -> bytes:
    """Return the sketch with other bytes at ``offset`` and a checksum that fits these bytes."""
    head = SKETCH[:offset] + fields + SKETCH[offset + len(fields) : HEADER_SIZE - 4]
    return head + struct.pack("<I", zlib.crc32(head)) + SKETCH[HEADER_SIZE:]


@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    base = data.draw(st.integers(1, 50))
    n_prime = base << data.draw(st.integers(0, 3))
    tau = data.draw(st.integers(1, 255))
    epoch = data.draw(st.integers(0, 2**64 - 1))
    seed = data.draw(st.integers(0, 2**32 - 1))
    build, run_id = data.draw(st.binary(min_size=16, max_size=16)), data.draw(st.binary(min_size=20, max_size=20))
    header = Header(base, seed_check(seed), tau, n_prime, epoch, build, run_id)
    registers = np.array(data.draw(st.lists(st.integers(0, tau), min_size=n_prime, max_size=n_prime)), np.uint8)
    encoded = encode(header, registers)
    assert len(encoded) == HEADER_SIZE + n_prime
    assert encoded.startswith(lineage(base, seed))
    decoded, values = decode(encoded, seed=seed)
    assert decoded == decode_header(encoded[:HEADER_SIZE], seed=seed) == header
    assert values.tolist() == registers.tolist()


def test_the_format_does_not_drift() -> None:
    """The test has every byte of the first version's format, because later versions must read the sketches in Redis."""
    assert SKETCH.hex() == (
        "4c435253" "0100" "0a000000" "fe63bedc797b6ed0" "0900" "14000000" "ffffffffffffffff"
        "000102030405060708090a0b0c0d0e0f" "000102030405060708090a0b0c0d0e0f10111213" "45222ea9"
        "0000000101010202020303030404040505050606"
    )  # fmt: skip


def test_the_digest_of_a_seed_does_not_drift() -> None:
    assert [seed_check(seed) for seed in (0, 7, 2**32 - 1)] == [
        0xE221164DE632049C,
        0xD06E7B79DCBE63FE,
        0xC860ED418F093269,
    ]


@given(st.integers(0, HEADER_SIZE * 8 - 1))
def test_every_flipped_bit_of_the_header_is_noticed(bit: int) -> None:
    damaged = bytearray(SKETCH)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SketchError):
        decode(bytes(damaged), seed=SEED)


@pytest.mark.parametrize(
    ("damaged", "error", "message"),
    [
        (b"", CorruptSketch, "too few"),
        (SKETCH[: HEADER_SIZE - 1], CorruptSketch, "too few"),
        (SKETCH[:-1], CorruptSketch, "19 registers, not 20"),
        (SKETCH + b"\0", CorruptSketch, "21 registers, not 20"),
        (SKETCH[:-1] + b"\x0a", CorruptSketch, "above tau"),
        (resealed(0, b"LCRX"), CorruptSketch, "magic"),
        (resealed(4, b"\2\0"), IncompatibleSketches, "version is 2"),
        (SKETCH[:68] + b"\0\0\0\0" + SKETCH[72:], CorruptSketch, "checksum"),
        (resealed(10, bytes(8)), IncompatibleSketches, "another cluster"),
        (resealed(18, b"\0\0"), CorruptSketch, "tau is 0"),
        (resealed(18, b"\0\1"), CorruptSketch, "tau is 256"),
        (resealed(6, struct.pack("<I", 7)), IncompatibleSketches, "power of two"),
        (resealed(6, struct.pack("<I", 0)), IncompatibleSketches, "power of two"),
        (resealed(20, struct.pack("<I", 30)), IncompatibleSketches, "power of two"),
        (resealed(20, struct.pack("<I", 40)), CorruptSketch, "20 registers, not 40"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_mismatch_says_what_it_is(damaged: bytes, error: type[SketchError], message: str) -> None:
    with pytest.raises(error, match=message):
        decode(damaged, seed=SEED)


def test_the_sketch_of_another_cluster_is_refused_and_does_not_show_its_seed() -> None:
    with pytest.raises(IncompatibleSketches, match="another cluster"):
        decode_header(SKETCH, seed=SEED + 1)
    assert struct.pack("<I", 0xDEADBEEF) not in lineage(10, 0xDEADBEEF)


@pytest.mark.parametrize(
    "header",
    [
        replace(HEADER, tau=0),
        replace(HEADER, tau=256),
        replace(HEADER, epoch=-1),
        replace(HEADER, epoch=2**64),
        replace(HEADER, n_prime=30),
        replace(HEADER, n_prime=10 << 30),
        replace(HEADER, build=b"short"),
        replace(HEADER, run_id=b"short"),
    ],
)
def test_bad_headers_are_not_written(header: Header) -> None:
    with pytest.raises(SketchError):
        encode_header(header)


def test_registers_that_do_not_fit_are_not_written() -> None:
    with pytest.raises(CorruptSketch, match="19 registers"):
        encode(HEADER, REGISTERS[:-1])
    with pytest.raises(CorruptSketch, match="above tau"):
        encode(HEADER, np.full(20, 10, np.uint8))


def test_no_header_promises_more_than_redis_can_hold() -> None:
    largest = replace(HEADER, base_n_prime=MAX_N_PRIME, n_prime=MAX_N_PRIME)
    assert len(encode_header(largest)) + largest.n_prime == 512 << 20
    with pytest.raises(IncompatibleSketches):
        encode_header(replace(largest, base_n_prime=MAX_N_PRIME + 1, n_prime=MAX_N_PRIME + 1))
