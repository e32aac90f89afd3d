"""Helpers of the tests of volumes of packs: look at packs and index without the code under test."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from storage.volumes import Identity, PackVolume

IDENTITY = Identity("cluster", "node_000", "node")


def named(label: str, size: int = 5000) -> tuple[str, bytes]:
    """A chunk of random bytes, always the same for one label: its hash and its bytes."""
    data = random.Random(label).randbytes(size)
    return hashlib.sha256(data).hexdigest(), data


def opened(root: Path, identity: Identity = IDENTITY) -> PackVolume:
    """Open a volume as another process would."""
    return PackVolume(root, identity)


def closed(*volumes: PackVolume) -> None:
    """Close volumes, as the end of their process would."""
    for volume in volumes:
        volume._handle = None


def packs(root: Path) -> list[Path]:
    return sorted((root / "packs").glob("*.pack"))


def place(root: Path, chunk_hash: str) -> tuple[Path, int, int]:
    """The pack of a chunk's record of any state, its offset, and the bytes that the record takes."""
    with closing(sqlite3.connect(root / "index.sqlite")) as index:
        name, offset, stored = index.execute(
            "SELECT name, place, stored FROM record r JOIN pack p ON p.id = r.pack WHERE hash = ?",
            (bytes.fromhex(chunk_hash),),
        ).fetchone()
    return root / "packs" / f"{name}.pack", offset, (128 + stored + 4095) // 4096 * 4096


def damage(root: Path, chunk_hash: str) -> None:
    """Flip a bit in the middle of the stored bytes of a chunk."""
    path, offset, _ = place(root, chunk_hash)
    with path.open("r+b") as file:
        file.seek(offset + 130)
        byte = file.read(1)[0]
        file.seek(offset + 130)
        file.write(bytes([byte ^ 0x10]))


def copy_of(root: Path, to: Path) -> Path:
    """Copy a volume with its holes, as it lies on the disk now."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(root, to)
    return to


def without_index(root: Path) -> None:
    for path in root.glob("index.sqlite*"):
        path.unlink()
