"""Helpers of the tests of volumes of packs: look at packs and index without the code under test."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from storage.volumes import Identity, PackVolume
from storage.volumes.packs.records import DATA

LOG_HEADER = 32  # The bytes at the beginning of SQLite's log that change when the log is begun anew.
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


def hashes(volume: PackVolume) -> set[str]:
    """The hashes of the replicas that the volume lists."""
    return {replica.chunk_hash for replica in volume.replicas()}


def failing(error: int) -> Callable[..., None]:
    """A function in the place of a system call that fails."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    return fail


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


class PackedCopy:
    """A copy of a chunk in a volume of packs. The methods are those of a path that tests use for a copy in a file."""

    def __init__(self, root: Path, chunk_hash: str) -> None:
        self.root = root
        self.name = chunk_hash

    def __lt__(self, other: PackedCopy) -> bool:
        return (str(self.root), self.name) < (str(other.root), other.name)

    def is_relative_to(self, folder: Path) -> bool:
        return self.root.is_relative_to(folder)

    def exists(self) -> bool:
        return self._row() is not None

    def read_bytes(self) -> bytes:
        pack, offset, stored = self._found()
        with pack.open("rb") as file:
            file.seek(offset + DATA)
            return file.read(stored)

    def write_bytes(self, data: bytes) -> None:
        """Overwrite the stored bytes in place, with zeros behind shorter data; or make a copy where there is none."""
        if self._row() is None:
            PackVolume(self.root).write({self.name: data})
            return
        pack, offset, stored = self._found()
        with pack.open("r+b") as file:
            file.seek(offset + DATA)
            file.write(data[:stored].ljust(stored, b"\0"))

    def unlink(self, missing_ok: bool = False) -> None:
        """Take the record out of pack and index."""
        pack, offset, stored = self._found()
        with pack.open("r+b") as file:
            file.seek(offset)
            file.write(bytes(DATA + stored))
        with closing(sqlite3.connect(self.root / "index.sqlite")) as index, index:
            index.execute("DELETE FROM record WHERE state = 0 AND hash = ?", (bytes.fromhex(self.name),))

    def _found(self) -> tuple[Path, int, int]:
        row = self._row()
        if row is None:
            raise FileNotFoundError(f"{self.root} has no copy of {self.name}")
        return self.root / "packs" / f"{row[0]}.pack", row[1], row[2]

    def _row(self) -> tuple[str, int, int] | None:
        statement = "SELECT name, place, stored FROM record r JOIN pack p ON p.id = r.pack WHERE state = 0 AND hash = ?"
        rows = _rows(self.root, statement, bytes.fromhex(self.name))
        return rows[0] if rows else None


def copies_in(root: Path, state: int = 0) -> list[str]:
    """The hashes of all records with a state in a volume of packs."""
    return [digest.hex() for (digest,) in _rows(root, "SELECT hash FROM record WHERE state = ?", state)]


def places_in(root: Path) -> dict[str, tuple[int, int]]:
    """Hash → number of the pack and offset, for each copy; empty for a directory without packs."""
    found = _rows(root, "SELECT hash, pack, place FROM record WHERE state = 0")
    return {digest.hex(): (pack, offset) for digest, pack, offset in found}


def trashed_in(root: Path) -> list[tuple[str, str]]:
    """Hash and token of each record in the trash; none for a directory without packs."""
    return [(digest.hex(), token) for digest, token in _rows(root, "SELECT hash, token FROM record WHERE state = 1")]


def good_copies_in(root: Path) -> list[str]:
    """The hashes of the copies whose bytes in the packs are good; none for a directory without packs.

    Chunks that are compressed are not expanded, and so do not count.
    """
    good = []
    statement = "SELECT hash, name, place, stored FROM record r JOIN pack p ON p.id = r.pack WHERE state = 0"
    for digest, name, offset, stored in _rows(root, statement):
        with suppress(FileNotFoundError), (root / "packs" / f"{name}.pack").open("rb") as pack:
            pack.seek(offset + DATA)
            if hashlib.sha256(pack.read(stored)).digest() == digest:
                good.append(digest.hex())
    return good


def _rows(root: Path, statement: str, *arguments: object) -> list[Any]:
    """Return the rows that a statement finds in a volume's index; none if the volume has no index.

    The statement runs on a copy of the index, because the disk of the volume may block every write. Even to open the
    index is a write: SQLite, run by root, sets the owner of the files that it opens.
    """
    if not (root / "index.sqlite").exists():
        return []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "index.sqlite")
        data, log = _read(root)
        copy.write_bytes(data)
        copy.with_name("index.sqlite-wal").write_bytes(log)
        with closing(sqlite3.connect(copy)) as index:
            return index.execute(statement, arguments).fetchall()


def _read(root: Path) -> tuple[bytes, bytes]:
    """The bytes of an index and of its log, which belong together.

    The log has all pages that are being copied from it into the index. If the log was begun anew meanwhile, its first
    bytes have changed, and both files are read again.
    """
    log = root / "index.sqlite-wal"
    while True:
        before = _bytes_of(log)
        data, after = (root / "index.sqlite").read_bytes(), _bytes_of(log)
        if before[:LOG_HEADER] == after[:LOG_HEADER]:
            return data, after


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
