"""The files that are uploaded and downloaded, of random bytes or of random words: no two chunks are equal."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
VOCABULARY, LETTERS = 4096, 8  # A file of words has this many different words, of this many letters each.


@dataclass(frozen=True)
class Workload:
    """``files`` files of ``size`` bytes, moved by ``clients`` clients, each on one connection that is kept open.

    Uploads are forms. With ``raw``, an upload is the file alone, and nothing is downloaded, because a download would be
    the same as without ``raw``. With ``words``, the files are of words, which can be compressed.
    """

    clients: int
    files: int
    size: int
    raw: bool = False
    words: bool = False

    def __str__(self) -> str:
        size = f"{self.size // MIB} MiB" if self.size >= MIB else f"{self.size // KIB} KiB"
        clients = f"{self.clients} client{'s' if self.clients > 1 else ''}"
        return (
            f"{self.files} × {size}, {clients}" + (", no form" if self.raw else "") + (", words" if self.words else "")
        )

    @property
    def directions(self) -> tuple[str, ...]:
        return ("up",) if self.raw else ("up", "down")

    def shrunk(self) -> Workload:
        """Return about a sixteenth of this workload, to test that the benchmark works."""
        return replace(self, files=max(self.clients, self.files // 16), size=min(self.size, 16 * MIB))


WARM_UP = Workload(8, 16, 64 * KIB)
WORKLOADS = {
    "W1": Workload(1, 1, 256 * MIB),
    "W1 raw": Workload(1, 1, 256 * MIB, raw=True),
    "W2": Workload(4, 64, 4 * MIB),
    "W3": Workload(8, 400, 64 * KIB),
}


@dataclass(frozen=True)
class Sample:
    """A file in memory, its SHA-256, and room for the downloaded bytes."""

    path: Path
    digest: str
    received: memoryview


def listed(workloads: Mapping[str, Workload]) -> str:
    """Return a list of the workloads in Markdown."""
    return "".join(f"- {name}: {workload}\n" for name, workload in workloads.items())


def blocks(size: int) -> Iterator[bytes]:
    """Yield ``size`` random bytes in pieces of up to 1 MiB; each call has its own seed from the operating system.

    The bytes are random and not a pattern, because no two chunks may be equal, whatever the size of a chunk.
    """
    source = np.random.default_rng()
    for start in range(0, size, MIB):
        yield source.bytes(min(MIB, size - start))


def words(size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes of words of eight letters, in pieces of up to 1 MiB.

    Some words are frequent, and most are rare. zstd compresses them to less than a third, as it does logs and programs.
    """
    source = np.random.default_rng()
    known = source.integers(ord("a"), ord("z") + 1, (VOCABULARY, LETTERS), dtype=np.uint8)
    for start in range(0, size, MIB):
        drawn = VOCABULARY * source.random(MIB // LETTERS) ** 6
        yield known[drawn.astype(np.intp)].tobytes()[: size - start]


@contextmanager
def samples(workload: Workload) -> Iterator[Sequence[Sample]]:
    """Make the files of a workload before any clock starts, in memory where that is possible."""
    folder = Path(tempfile.mkdtemp(prefix="occ-bench-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        yield [_sample(folder / f"{folder.name}-{i:03}.bin", workload) for i in range(workload.files)]
    finally:
        shutil.rmtree(folder)


def _sample(path: Path, workload: Workload) -> Sample:
    digest, size = sha256(), workload.size
    with path.open("wb") as file:
        for block in words(size) if workload.words else blocks(size):
            digest.update(block)
            file.write(block)
    # The room is filled once, so that the kernel allocates the memory now and not while the clock runs.
    return Sample(path, digest.hexdigest(), memoryview(bytearray(b"\xff") * size))
