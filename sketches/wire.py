"""The stored form of a sketch: a header of 72 bytes, then the registers, one byte each.

======  ====  ============  ==============================================================
offset  size  field         meaning
======  ====  ============  ==============================================================
0       4     magic         ``LCRS``
4       2     version       version of this format
6       4     base_n_prime  N' before any growth
10      8     seed_check    digest of the cluster's seed; offsets 0 to 17 are the *lineage*
18      2     tau           level at which a register saturates, 1 to 255
20      4     n_prime       N', ``base_n_prime`` times a power of two, at most `MAX_N_PRIME`
24      8     epoch         epoch of the node's sketch in PostgreSQL when the build began
32      16    build         random id of this build
48      20    run_id        run id of the Redis server under which it was built
68      4     crc32         checksum of all fields above
======  ====  ============  ==============================================================

Integers are little-endian. The fields that the server's Lua scripts read (lineage, tau, n_prime, build, run_id) are at
fixed offsets. The fields for the scripts are integers of at most four bytes or plain bytes, because a Lua number holds
no 64-bit integer.
"""

import hashlib
import struct
import zlib
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from sketches.exceptions import CorruptSketch, IncompatibleSketches
from sketches.lcrs import folds
from sketches.registers import MAX_TAU

MAGIC = b"LCRS"
VERSION = 1
HEADER_SIZE = 72
BUILD_SIZE = 16
RUN_ID_SIZE = 20
MAX_N_PRIME = (512 << 20) - HEADER_SIZE
"""The most registers that a sketch may have: Redis holds values of up to 512 MiB."""

_LINEAGE = struct.Struct("<4sHIQ")
_FIELDS = struct.Struct("<4sHIQHIQ16s20s")
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class Header:
    """The header of a sketch; the fields are in the order of the format above.

    Attributes:
        base_n_prime: N' before any growth, in registers.
        seed_check: `seed_check` of the cluster's seed.
        tau: the level at which a register saturates.
        n_prime: N', in registers.
        epoch: the epoch of the node's sketch for which this sketch was built.
        build: 16 random bytes, one value per build.
        run_id: the 20 bytes of the run id of the Redis server under which this sketch was built.
    """

    base_n_prime: int
    seed_check: int
    tau: int
    n_prime: int
    epoch: int
    build: bytes
    run_id: bytes


def seed_check(seed: int) -> int:
    """Digest a seed to 64 bits, so that the sketches of another cluster are recognised as such."""
    digest = hashlib.blake2b(seed.to_bytes(4, "little"), digest_size=8, person=b"LCRS seed").digest()
    return int.from_bytes(digest, "little")


def lineage(base_n_prime: int, seed: int) -> bytes:
    """The first bytes of every sketch of a cluster: magic, version, base size and digest of the seed."""
    return _LINEAGE.pack(MAGIC, VERSION, base_n_prime, seed_check(seed))


def encode_header(header: Header) -> bytes:
    """Encode a header, checksum included.

    Raises:
        CorruptSketch: a field has no valid value.
        IncompatibleSketches: `n_prime` is not `base_n_prime` times a power of two.
    """
    _check_fields(header)
    try:
        fields = _FIELDS.pack(MAGIC, VERSION, *astuple(header))
    except struct.error as error:
        raise CorruptSketch(f"a header field is out of range: {error}") from error
    return fields + _CRC.pack(zlib.crc32(fields))


def encode(header: Header, registers: NDArray[np.uint8]) -> bytes:
    """Encode a sketch: its header and its registers, uint8 of shape ``[header.n_prime]``.

    Raises:
        CorruptSketch: a field has no valid value, or the registers do not fit the header.
    """
    _check_registers(header, registers)
    return encode_header(header) + registers.tobytes()


def decode_header(data: bytes, *, seed: int) -> Header:
    """Decode and check the header at the start of ``data``.

    Args:
        data: a sketch, or the first bytes of one.
        seed: the seed of this cluster.

    Raises:
        CorruptSketch: ``data`` is too short, not a sketch or damaged, or a field has no valid value.
        IncompatibleSketches: the format has another version, the sketch is of another cluster, or its size is not the
            base times a power of two.
    """
    if len(data) < HEADER_SIZE:
        raise CorruptSketch(f"{len(data)} bytes are too few for a header of {HEADER_SIZE}")
    magic, version, *fields = _FIELDS.unpack_from(data)
    if magic != MAGIC:
        raise CorruptSketch(f"magic is {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise IncompatibleSketches(f"format version is {version}, not {VERSION}")
    if _CRC.unpack_from(data, _FIELDS.size)[0] != zlib.crc32(data[: _FIELDS.size]):
        raise CorruptSketch("the checksum of the header does not match")
    header = Header(*fields)
    if header.seed_check != seed_check(seed):
        raise IncompatibleSketches("the sketch was built with the seed of another cluster")
    _check_fields(header)
    return header


def decode(data: bytes, *, seed: int) -> tuple[Header, NDArray[np.uint8]]:
    """Decode and check a whole sketch.

    Args:
        data: header and registers.
        seed: the seed of this cluster.

    Returns:
        The header and its registers, read-only uint8 of shape ``[n_prime]``.

    Raises:
        CorruptSketch: as by `decode_header`, or the length is wrong, or a register exceeds tau.
        IncompatibleSketches: as by `decode_header`.
    """
    header = decode_header(data, seed=seed)
    registers = np.frombuffer(data, np.uint8, offset=HEADER_SIZE)
    _check_registers(header, registers)
    return header, registers


def _check_fields(header: Header) -> None:
    if not 1 <= header.tau <= MAX_TAU:
        raise CorruptSketch(f"tau is {header.tau}, not 1 to {MAX_TAU}")
    if header.n_prime > MAX_N_PRIME:
        raise IncompatibleSketches(f"n_prime is {header.n_prime}, above {MAX_N_PRIME}")
    if not folds(header.n_prime, header.base_n_prime):
        raise IncompatibleSketches(f"n_prime {header.n_prime} is not {header.base_n_prime} times a power of two")
    if len(header.build) != BUILD_SIZE or len(header.run_id) != RUN_ID_SIZE:
        raise CorruptSketch(f"build and run id have {BUILD_SIZE} and {RUN_ID_SIZE} bytes")


def _check_registers(header: Header, registers: NDArray[np.uint8]) -> None:
    if registers.shape != (header.n_prime,):
        raise CorruptSketch(f"{registers.size} registers, not {header.n_prime}")
    if registers.max() > header.tau:
        raise CorruptSketch(f"a register holds {registers.max()}, above tau {header.tau}")
