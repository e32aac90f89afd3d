"""From a chunk hash to a register: the same on every node, different in every cluster."""

from collections.abc import Sequence

import mmh3
import numpy as np
from numpy.typing import NDArray

HEX_DIGITS = 64
MAX_SEED = 2**32 - 1


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
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be an unsigned 32-bit integer, not {seed}")
    digests = bytes.fromhex("".join(chunk_hashes))  # at once: one by one would take longer than to hash them
    size = HEX_DIGITS // 2
    if set(map(len, chunk_hashes)) - {HEX_DIGITS} or len(digests) != size * len(chunk_hashes):
        raise ValueError(f"a chunk hash has {HEX_DIGITS} hexadecimal digits")
    hashed = [mmh3.mmh3_x64_128_digest(digests[at : at + size], seed) for at in range(0, len(digests), size)]
    return np.frombuffer(b"".join(hashed), "<u8")[::2].astype(np.uint64)


def registers_of(hashes64: NDArray[np.uint64], n_prime: int) -> NDArray[np.int64]:
    """Map 64-bit hashes to registers, by modulo.

    Sizes that are multiples of each other agree, ``h mod 2N' mod N' == h mod N'``: that is what lets a
    larger sketch fold exactly onto a smaller one.

    Args:
        hashes64: uint64, any shape.
        n_prime: number of registers N', at least 1.

    Returns:
        int64 in ``[0, n_prime)``, of the same shape.
    """
    return (hashes64 % np.uint64(n_prime)).astype(np.int64)
