import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketches.hashing import AT_ONCE, hash_chunks, hash_digests, registers_of

MASK = 2**64 - 1


def _rotl(value: int, by: int) -> int:
    return (value << by | value >> 64 - by) & MASK


def _mix(value: int) -> int:
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & MASK
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & MASK
    return value ^ value >> 33


def murmur3_x64_128(data: bytes, seed: int) -> bytes:
    """MurmurHash3_x64_128, written after Appleby's public-domain source."""
    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
    h1 = h2 = seed
    whole = len(data) // 16 * 16
    for k1, k2 in struct.iter_unpack("<QQ", data[:whole]):
        h1 ^= _rotl(k1 * c1 & MASK, 31) * c2 & MASK
        h1 = ((_rotl(h1, 27) + h2) * 5 + 0x52DCE729) & MASK
        h2 ^= _rotl(k2 * c2 & MASK, 33) * c1 & MASK
        h2 = ((_rotl(h2, 31) + h1) * 5 + 0x38495AB5) & MASK
    tail = data[whole:].ljust(16, b"\0")
    k1, k2 = struct.unpack("<QQ", tail)
    h2 ^= _rotl(k2 * c2 & MASK, 33) * c1 & MASK
    h1 ^= _rotl(k1 * c1 & MASK, 31) * c2 & MASK
    h1, h2 = h1 ^ len(data), h2 ^ len(data)
    h1 = h1 + h2 & MASK
    h2 = h2 + h1 & MASK
    h1, h2 = _mix(h1), _mix(h2)
    h1 = h1 + h2 & MASK
    return struct.pack("<QQ", h1, h2 + h1 & MASK)


def test_reference_passes_the_verification_of_smhasher() -> None:
    """SMHasher's VerificationTest of MurmurHash3_x64_128, whose published result is 0x6384BA69."""
    hashes = b"".join(murmur3_x64_128(bytes(range(size)), 256 - size) for size in range(256))
    assert int.from_bytes(murmur3_x64_128(hashes, 0)[:4], "little") == 0x6384BA69


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=5), st.integers(0, 2**32 - 1))
def test_hash_is_the_low_half_of_murmur3(digests: list[bytes], seed: int) -> None:
    expected = [int.from_bytes(murmur3_x64_128(digest, seed)[:8], "little") for digest in digests]
    hashes = hash_chunks([digest.hex() for digest in digests], seed)
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == expected


def test_known_vector() -> None:
    assert hash_chunks([bytes(range(32)).hex()], 7).tolist() == [4154049328739985935]


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**31))
def test_sizes_fold(hash64: int, n_prime: int) -> None:
    hashes = np.array([hash64], np.uint64)
    assert registers_of(hashes, 2 * n_prime) % n_prime == registers_of(hashes, n_prime) == hash64 % n_prime


@pytest.mark.parametrize("bad", ["", "ab", "g" * 64, "a" * 63, "a" * 65])
def test_bad_chunk_hashes_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="hex"):
        hash_chunks(["0" * 64, bad], 0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_bad_seeds_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        hash_chunks([], seed)


KNOWN = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "5487469967d6ca6d34f958ae9df6d04d6fd62428dd8bfcadc68ec2710952c4e2",
]


@pytest.mark.parametrize(
    ("seed", "hashes", "registers"),
    [
        (0, [0x6CC2D6C94720822E, 0x7A0C6B5F75136B61, 0xC7123B80EB3E503E], [7726, 8161, 13278]),
        (7, [0xBC7EB909A3048DB8, 0x129A37ADA6752D2D, 0x20F192C04EAC3057], [3480, 10893, 5591]),
        (2**32 - 1, [0x13C0C6935C4921E1, 0xC09CC704E3AB59AA, 0x88AD5B1B5936B379], [5569, 298, 4505]),
    ],
)
def test_the_registers_of_known_chunks_do_not_drift(seed: int, hashes: list[int], registers: list[int]) -> None:
    """The counts in Redis may have been made by an earlier version of this code.

    If chunks had other registers than in the earlier version, the sketches would deny chunks that are there.
    """
    found = hash_chunks(KNOWN, seed)
    assert found.tolist() == hashes
    assert registers_of(found, 20_000).tolist() == registers
    assert registers_of(found, 10_000).tolist() == [register % 10_000 for register in registers]


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40), st.integers(0, 2**32 - 1))
def test_digests_are_hashed_as_their_hexadecimal_digits(digests: list[bytes], seed: int) -> None:
    hashed = hash_digests(b"".join(digests), seed)
    assert hashed.dtype == np.uint64
    assert hashed.tolist() == hash_chunks([digest.hex() for digest in digests], seed).tolist()


def test_more_digests_than_are_hashed_at_once_keep_their_order() -> None:
    digests = np.random.default_rng(1).bytes(32 * (2 * AT_ONCE + 7))
    chunk_hashes = [digests[at : at + 32].hex() for at in range(0, len(digests), 32)]
    assert (hash_digests(digests, 7) == hash_chunks(chunk_hashes, 7)).all()


@pytest.mark.parametrize(("digests", "seed"), [(b"x" * 31, 0), (b"x" * 33, 0), (b"", -1), (b"", 2**32)])
def test_what_are_no_digests_is_refused(digests: bytes, seed: int) -> None:
    with pytest.raises(ValueError, match=r"bytes|seed"):
        hash_digests(digests, seed)
