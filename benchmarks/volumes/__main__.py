"""Compares volumes of files with volumes of packs: the times of durable writes of batches, and of listings of a node.

Five nodes lie on one disk, and each chunk goes to three of them, as an ingest worker writes it. The last column of
the first table is the processor time of this process for each GiB of chunks.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks.service.table import table
from storage.volumes import FilesystemVolume, Identity, PackVolume
from storage.volumes.packs.index import Index, Place, Row
from storage.volumes.packs.records import State, fingerprint

NODES, COPIES = 5, 3
BATCHES = ((64, 262_144, 12), (4, 65_536, 40), (8, 65_536, 30), (32, 65_536, 15))
"""Chunks in a batch, their size in bytes, and the number of batches."""

Make = Callable[[Path, Identity], FilesystemVolume | PackVolume]
KINDS: Mapping[str, Make] = {
    "file": FilesystemVolume,
    "pack": PackVolume,
    "pack, zstd": lambda root, identity: PackVolume(root, identity, compress=True),
}


def batches_of(chunks: int, size: int, number: int) -> list[dict[str, bytes]]:
    """Return batches of random chunks: chunk hash → bytes."""
    return [
        {hashlib.sha256(data).hexdigest(): data for data in (os.urandom(size) for _ in range(chunks))}
        for _ in range(number)
    ]


def write(make: Make, folder: Path, batches: Sequence[Mapping[str, bytes]]) -> tuple[float, float, float]:
    """Write batches to new volumes; return MiB/s, the median seconds of a batch, and CPU seconds for 1 GiB.

    Args:
        make: opens a volume.
        folder: the directory in which the volumes are made.
        batches: chunk hash → bytes, for each batch.
    """
    volumes = []
    for number in range(NODES):
        identity = Identity("benchmark", f"node_{number:03d}", f"{number}")
        volumes.append(make(folder / identity.node_id, identity))
        volumes[-1].create(identity)
    times, used, begun = [], time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(NODES) as pool:
        for batch in batches:
            portions: list[dict[str, bytes]] = [{} for _ in volumes]
            for place, (name, data) in enumerate(batch.items()):
                for copy in range(COPIES):
                    portions[(place + copy) % NODES][name] = data
            started = time.perf_counter()
            list(pool.map(lambda volume, portion: volume.write(portion), volumes, portions))
            times.append(time.perf_counter() - started)
    size = sum(len(data) for batch in batches for data in batch.values())
    taken, used = time.perf_counter() - begun, time.process_time() - used
    return size / taken / (1 << 20), median(times), used / (size / (1 << 30))


def fill(volume: FilesystemVolume | PackVolume, hashes: Sequence[str]) -> None:
    """Give a volume the names of chunks without their bytes: a listing reads no bytes."""
    if isinstance(volume, PackVolume):
        (volume.root / "packs" / "listed.pack").touch()
        index = Index.make(volume.root, fingerprint("benchmark", "node"), 0)
        rows = [Row(name, State.LIVE, "", Place("listed", 0, 4096, 4096)) for name in hashes]
        for start in range(0, len(rows), 10_000):
            index.add("listed", rows[start : start + 10_000], 0, sealed=True)
        index.install()
    else:
        for name in hashes:
            (volume.root / "chunks" / name[:2] / name).touch()


def listing(make: Make, folder: Path, chunks: int) -> float:
    """Return the seconds to list a node with ``chunks`` chunks, range by range, while their names are in memory."""
    identity = Identity("benchmark", "node_000", "node")
    volume = make(folder, identity)
    volume.create(identity)
    fill(volume, [os.urandom(32).hex() for _ in range(chunks)])
    begun = time.perf_counter()
    number = sum(1 for i in range(256) for _ in volume.replicas(f"{i:02x}"))
    assert number == chunks
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.volumes", description=__doc__)
    parser.add_argument("--chunks", type=int, default=20_000, help="chunks of the node that is listed")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="occ-volumes-", dir=options.folder))
    rows: list[list[str | float]] = []
    try:
        for chunks, size, number in BATCHES:
            for kind, make in KINDS.items():
                figures = write(make, place / "written", batches_of(chunks, size, number))
                speed, seconds, used = figures
                rows.append([f"{chunks} chunks of {size >> 10} KiB", kind, speed, 1e3 * seconds, used])
                shutil.rmtree(place / "written")
        print(table(["batch", "volume", "MiB/s", "ms a batch", "CPU s/GiB"], rows))
        rows = []
        for kind in ("file", "pack"):
            rows.append([kind, float(options.chunks), listing(KINDS[kind], place / "listed", options.chunks)])
            shutil.rmtree(place / "listed")
        print()
        print(table(["volume", "chunks", "s to list them"], rows))
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
