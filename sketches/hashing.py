"""Maps chunk hashes to registers: in the same way on every node, differently in every cluster."""

from collections.abc import Sequence

import mmh3
import numpy as np
from numpy.typing import NDArray

HEX_DIGITS = 64
DIGEST_SIZE = HEX_DIGITS // 2
MAX_SEED = 2**32 - 1
AT_ONCE = 1 << 14
"""``hash_digests`` hashes this many digests at a time, so that their intermediate results fit the processor's cache."""


def hash_chunks(chunk_hashes: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """Hash chunk hashes to 64 bits: the low half of MurmurHash3 x64 128 over the 32 digest bytes.

    Args:
        chunk_hashes: SHA-256 digests as 64 hexadecimal digits, shape ``[n]``.
        seed: the cluster's seed, an unsigned 32-bit integer.

    Returns:
        uint64, shape ``[n]``.

    Raises:
        ValueError: a chunk hash is not 64 hexadecimal digits, or the seed is out of range.
    """
    _require_seed(seed)
    digests = bytes.fromhex("".join(chunk_hashes))  # A call for each hash would take longer.
    size = DIGEST_SIZE
    if set(map(len, chunk_hashes)) - {HEX_DIGITS} or len(digests) != size * len(chunk_hashes):
        raise ValueError(f"a chunk hash has {HEX_DIGITS} hexadecimal digits")
    hashed = [mmh3.mmh3_x64_128_digest(digests[at : at + size], seed) for at in range(0, len(digests), size)]
    return np.frombuffer(b"".join(hashed), "<u8")[::2].astype(np.uint64)


def hash_digests(digests: bytes, seed: int) -> NDArray[np.uint64]:
    """Hash binary digests as ``hash_chunks`` hashes their hexadecimal digits, but fast for millions of digests.

    The function is MurmurHash3 x64 128 for inputs of two blocks without a tail. Each step is computed for many digests
    at once, some ten times as fast as a call for each digest. For a few digests ``hash_chunks`` is faster.

    Args:
        digests: n SHA-256 digests of 32 bytes, one after the other.
        seed: the cluster's seed, an unsigned 32-bit integer.

    Returns:
        uint64, shape ``[n]``.

    Raises:
        ValueError: the bytes are not whole digests, or the seed is out of range.
    """
    _require_seed(seed)
    if len(digests) % DIGEST_SIZE:
        raise ValueError(f"{len(digests)} bytes are not digests of {DIGEST_SIZE} bytes each")
    words = np.frombuffer(digests, "<u8").reshape(-1, 4)
    hashed = np.empty(len(words), np.uint64)
    for start in range(0, len(words), AT_ONCE):
        part = words[start : start + AT_ONCE].T.astype(np.uint64, order="C")
        hashed[start : start + AT_ONCE] = _murmur3_of_two_blocks(part, seed)
    return hashed


_C1, _C2 = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)
_N1, _N2 = np.uint64(0x52DCE729), np.uint64(0x38495AB5)


def _murmur3_of_two_blocks(words: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return the low halves of the hashes of ``words`` ``[4, n]``, after Appleby's public-domain source.

    Products overflow at 2^64, as the algorithm requires.
    """
    h1 = np.full(words.shape[1], seed, np.uint64)
    h2 = h1.copy()
    for k1, k2 in (words[:2], words[2:]):
        h1 = (_rotated(h1 ^ _rotated(k1 * _C1, 31) * _C2, 27) + h2) * np.uint64(5) + _N1
        h2 = (_rotated(h2 ^ _rotated(k2 * _C2, 33) * _C1, 31) + h1) * np.uint64(5) + _N2
    h1 ^= np.uint64(DIGEST_SIZE)
    h2 ^= np.uint64(DIGEST_SIZE)
    h1 += h2
    h2 += h1
    return _finished(h1) + _finished(h2)


def _rotated(values: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    return values << np.uint64(bits) | values >> np.uint64(64 - bits)


def _finished(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ values >> np.uint64(33)) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ values >> np.uint64(33)) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ values >> np.uint64(33)


def _require_seed(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be an unsigned 32-bit integer, not {seed}")


def registers_of(hashes64: NDArray[np.uint64], n_prime: int) -> NDArray[np.int64]:
    """Map 64-bit hashes to registers, by modulo.

    Sizes that are multiples of each other agree: ``h mod 2N' mod N' == h mod N'``. A larger sketch therefore folds
    exactly onto a smaller one.

    Args:
        hashes64: uint64, any shape.
        n_prime: number of registers N', at least 1.

    Returns:
        int64 in ``[0, n_prime)``, of the same shape.
    """
    return (hashes64 % np.uint64(n_prime)).astype(np.int64)
