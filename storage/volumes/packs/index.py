"""The index of a volume of packs: an SQLite database that says where each record lies, and what it is.

The index is a cache. The packs have all that the index says, so an index that is missing or damaged is made again from
them. When the index says that a record is absent, all processes believe this answer, and a removal relies on it. So a
change of state is durable before its method returns. The row of a new record needs no sync: the record is in its pack.
A process that opens the volume after a power cut looks into the packs that are not sealed for records that the index
has lost (``recovery``).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from storage.volumes.base import Replica
from storage.volumes.descriptors import open_at, sync_directory
from storage.volumes.packs.connection import ASIDE, DRAFT, FORMAT, NAME, Connection, as_os_errors
from storage.volumes.packs.records import State, span

ASKED_AT_ONCE = 500
LISTED_AT_ONCE = 10_000

_SCHEMA = """
CREATE TABLE volume (format INTEGER NOT NULL, fingerprint BLOB NOT NULL, serial INTEGER NOT NULL) STRICT;
CREATE TABLE pack (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    indexed INTEGER NOT NULL,
    sealed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE record (
    hash BLOB NOT NULL,
    state INTEGER NOT NULL,
    token TEXT NOT NULL,
    pack INTEGER NOT NULL,
    place INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (hash, state, token)
) STRICT, WITHOUT ROWID;
CREATE INDEX record_place ON record (pack, place);
CREATE INDEX record_removed ON record (state) WHERE state > 0;
"""


@dataclass(frozen=True)
class Place:
    """Where a record lies.

    Attributes:
        pack: the name of the pack.
        offset: where in the pack the record begins.
        stored: the number of stored bytes.
        size: the number of plain bytes.
    """

    pack: str
    offset: int
    stored: int
    size: int

    @property
    def span(self) -> int:
        """The bytes that the record takes in its pack."""
        return span(self.stored)


@dataclass(frozen=True)
class Row:
    """One record of the index."""

    chunk_hash: str
    state: State
    token: str
    place: Place


@dataclass(frozen=True)
class Totals:
    """The number of records, and the sums of their stored and of their plain bytes."""

    records: int
    stored: int
    size: int


@dataclass(frozen=True)
class PackRow:
    """A pack as the index knows it.

    Attributes:
        name: the pack's name.
        indexed: where the part of the pack ends whose records the index has taken in.
        sealed: True if nothing is appended any more.
    """

    name: str
    indexed: int
    sealed: bool


class Index:
    """The index of one volume, as one process has it open. Thread-safe.

    Every method may raise ``OSError``, or ``IndexDamaged``.
    """

    def __init__(self, folder: Path, fingerprint: bytes, name: str = NAME, *, draft: bool = False) -> None:
        """Open an index that is there.

        Args:
            folder: the volume's directory.
            fingerprint: the volume's fingerprint, as the index must have it.
            name: the name of the file.
            draft: True for an index that is not finished yet.

        Raises:
            IndexDamaged: the file is missing, damaged, of another format or volume, or older than the volume.
        """
        self._connection = Connection(folder / name, fingerprint, draft=draft)

    @property
    def inode(self) -> int:
        """The inode of the file that was opened."""
        return self._connection.inode

    @classmethod
    def make(cls, folder: Path, fingerprint: bytes, serial: int) -> Index:
        """Make a new index under a name of its own. ``install`` gives the complete index its final name.

        Args:
            folder: the volume's directory.
            fingerprint: the volume's fingerprint.
            serial: the number of times that a record of the volume has changed its state.
        """
        for suffix in ("", "-wal", "-shm"):
            (folder / f"{DRAFT}{suffix}").unlink(missing_ok=True)
        with as_os_errors(folder / DRAFT):
            connection = sqlite3.connect(folder / DRAFT, isolation_level=None)
            try:
                connection.executescript(_SCHEMA)
                connection.execute("INSERT INTO volume VALUES (?, ?, ?)", (FORMAT, fingerprint, serial))
            finally:
                connection.close()
        return cls(folder, fingerprint, DRAFT, draft=True)

    def install(self) -> None:
        """Close the index, and give it the name under which processes open it, durably."""
        self._connection.finish()
        path = self._connection.path
        folder = path.parent
        # If these files stayed, SQLite would apply the log of the old index to the new one.
        for suffix in ("-wal", "-shm"):
            (folder / f"{NAME}{suffix}").unlink(missing_ok=True)
        with open_at(None, str(path), os.O_RDONLY | os.O_CLOEXEC) as descriptor:
            os.fsync(descriptor)
        path.rename(folder / NAME)
        (folder / ASIDE).unlink(missing_ok=True)
        sync_directory(None, str(folder))

    # -- records -----------------------------------------------------------

    def live(self, chunk_hash: str) -> Place | None:
        """Where the replica of a chunk lies; None if there is none."""
        rows = self._records("r.hash = ? AND r.state = 0", (bytes.fromhex(chunk_hash),))
        return rows[0].place if rows else None

    def behind(self, place: Place, limit: int) -> dict[str, Place]:
        """Hash → place of the next replicas behind a place in its pack, at most ``limit``."""
        statement = """SELECT hash, place, stored, size FROM record
                        WHERE pack = (SELECT id FROM pack WHERE name = ?) AND place > ? AND state = 0
                        ORDER BY place LIMIT ?"""
        with self._connection.reading() as connection:
            rows = connection.execute(statement, (place.pack, place.offset, limit)).fetchall()
        return {digest.hex(): Place(place.pack, *rest) for digest, *rest in rows}

    def sizes(self, chunk_hashes: Sequence[str]) -> dict[str, int]:
        """The plain sizes of the replicas that are there: chunk hash → bytes."""
        found: dict[str, int] = {}
        with self._connection.reading() as connection:
            for start in range(0, len(chunk_hashes), ASKED_AT_ONCE):
                digests = [bytes.fromhex(chunk_hash) for chunk_hash in chunk_hashes[start : start + ASKED_AT_ONCE]]
                marks = ",".join("?" * len(digests))
                statement = f"SELECT hash, size FROM record WHERE state = 0 AND hash IN ({marks})"  # noqa: S608
                found.update((digest.hex(), size) for digest, size in connection.execute(statement, digests))
        return found

    def listing(self, prefix: str) -> Iterator[Replica]:
        """The replicas whose hashes have a prefix of hex digits, in the order of the hashes."""
        low = bytes.fromhex(prefix + "0" * (len(prefix) % 2))
        high = bytes.fromhex(prefix + "f" * (64 - len(prefix)))
        compared = ">="
        while True:
            statement = (
                f"SELECT hash, size, stored FROM record WHERE hash {compared} ? AND hash <= ? AND state = 0 "  # noqa: S608
                "ORDER BY hash LIMIT ?"
            )
            with self._connection.reading() as connection:
                rows = connection.execute(statement, (low, high, LISTED_AT_ONCE)).fetchall()
            yield from (Replica(digest.hex(), size, stored) for digest, size, stored in rows)
            if len(rows) < LISTED_AT_ONCE:
                return
            low, compared = rows[-1][0], ">"

    def has(self, chunk_hash: str, state: State, token: str) -> bool:
        """True if a record of the chunk has this state and token."""
        return bool(self._records(_KEY, (bytes.fromhex(chunk_hash), state, token)))

    def removed(self, chunk_hash: str, state: State, token: str | None = None) -> list[Row]:
        """The records of a chunk in trash or quarantine, with any token if ``token`` is None."""
        if token is None:
            return self._records("r.hash = ? AND r.state = ?", (bytes.fromhex(chunk_hash), state))
        return self._records("r.hash = ? AND r.state = ? AND r.token = ?", (bytes.fromhex(chunk_hash), state, token))

    def trashed(self) -> list[tuple[str, str]]:
        """Hash and token of every record in the trash."""
        with self._connection.reading() as connection:
            rows = connection.execute("SELECT hash, token FROM record WHERE state = ?", (State.TRASHED,)).fetchall()
        return [(digest.hex(), token) for digest, token in rows]

    def totals(self) -> Totals:
        """Count the records of all states."""
        with self._connection.reading() as connection:
            statement = "SELECT count(*), coalesce(sum(stored), 0), coalesce(sum(size), 0) FROM record"
            return Totals(*connection.execute(statement).fetchone())

    def add(self, pack: str, rows: Sequence[Row], indexed: int, *, sealed: bool) -> list[Place]:
        """Take in records that are durable in a pack; returns the places of older records that they replace.

        Args:
            pack: the name of the pack.
            rows: the records, which lie in this pack.
            indexed: where the last of the records ends.
            sealed: True if nothing is appended to the pack any more.
        """
        with self._connection.changing(durable=False) as connection:
            number = _pack_id(connection, pack)
            keys = [(bytes.fromhex(row.chunk_hash), row.state, row.token) for row in rows]
            replaced = [old for key in keys for old in _select(connection, _KEY, key)]
            values = [
                (*key, number, row.place.offset, row.place.stored, row.place.size)
                for key, row in zip(keys, rows, strict=True)
            ]
            connection.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            statement = "UPDATE pack SET indexed = max(indexed, ?), sealed = max(sealed, ?) WHERE id = ?"
            connection.execute(statement, (indexed, sealed, number))
        return [row.place for row in replaced]

    def change(
        self, chunk_hash: str, old: tuple[State, str], new: tuple[State, str]
    ) -> tuple[Place | None, list[Place]]:
        """Change the state and the token of a record, durably.

        Args:
            chunk_hash: the chunk.
            old: the state and token that the record has.
            new: the state and token that it gets.

        Returns:
            The place of the record, or None if there is no such record; and the places of records that it replaces.
        """
        digest = bytes.fromhex(chunk_hash)
        with self._connection.changing(durable=True) as connection:
            rows = _select(connection, _KEY, (digest, *old))
            if not rows:
                return None, []
            replaced = [row.place for row in _select(connection, _KEY, (digest, *new))]
            connection.execute("DELETE FROM record WHERE hash = ? AND state = ? AND token = ?", (digest, *new))
            statement = "UPDATE record SET state = ?, token = ? WHERE hash = ? AND state = ? AND token = ?"
            connection.execute(statement, (*new, digest, *old))
        return rows[0].place, replaced

    def drop(self, row: Row) -> bool:
        """Delete a record from the index, durably; False if it is not there any more."""
        key = (bytes.fromhex(row.chunk_hash), row.state, row.token)
        with self._connection.changing(durable=True) as connection:
            statement = "DELETE FROM record WHERE hash = ? AND state = ? AND token = ?"
            return bool(connection.execute(statement, key).rowcount)

    # -- packs -------------------------------------------------------------

    def packs(self, *, unsealed: bool = False) -> list[PackRow]:
        """All packs; if ``unsealed``, only the packs that are not sealed."""
        where = "WHERE NOT sealed" if unsealed else ""
        with self._connection.reading() as connection:
            rows = connection.execute(f"SELECT name, indexed, sealed FROM pack {where}").fetchall()  # noqa: S608
        return [PackRow(name, indexed, bool(sealed)) for name, indexed, sealed in rows]

    def pack(self, name: str) -> PackRow | None:
        """One pack; None if the index does not know it."""
        with self._connection.reading() as connection:
            row = connection.execute("SELECT name, indexed, sealed FROM pack WHERE name = ?", (name,)).fetchone()
        return PackRow(row[0], row[1], bool(row[2])) if row else None

    def spent(self, name: str | None = None) -> list[str]:
        """The names of the sealed packs that have no record any more; if ``name`` is given, of this pack only."""
        statement = "SELECT name FROM pack p WHERE sealed AND NOT EXISTS (SELECT 1 FROM record r WHERE r.pack = p.id)"
        chosen, values = ("", ()) if name is None else (" AND name = ?", (name,))
        with self._connection.reading() as connection:
            return [found for (found,) in connection.execute(statement + chosen, values)]

    def records_of(self, pack: str) -> tuple[int, list[tuple[int, int]]]:
        """Where the indexed part of a pack ends, and (offset, stored bytes) of its records in order, at one instant."""
        with self._connection.reading() as connection:
            statement = """SELECT p.indexed, r.place, r.stored FROM pack p LEFT JOIN record r ON r.pack = p.id
                            WHERE p.name = ? ORDER BY r.place"""
            rows = connection.execute(statement, (pack,)).fetchall()
        return (rows[0][0] if rows else 0), [(place, stored) for _, place, stored in rows if place is not None]

    def forget_pack(self, name: str) -> int:
        """Delete a pack and its records from the index, durably; returns the number of records."""
        with self._connection.changing(durable=True) as connection:
            number = _pack_id(connection, name)
            records = connection.execute("DELETE FROM record WHERE pack = ?", (number,)).rowcount
            connection.execute("DELETE FROM pack WHERE id = ?", (number,))
        return records

    def _records(self, where: str, values: tuple[object, ...]) -> list[Row]:
        with self._connection.reading() as connection:
            return _select(connection, where, values)


@contextmanager
def put_aside(folder: Path) -> Iterator[None]:
    """Put the index aside while the packs are read; after an error it is put back.

    While the index is aside, no process acknowledges a change (RACES 45). All changes that were acknowledged before are
    in the packs.
    """
    (folder / ASIDE).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        (folder / NAME).rename(folder / ASIDE)
    try:
        yield
    except BaseException:
        with suppress(FileNotFoundError):
            (folder / ASIDE).rename(folder / NAME)
        raise


_KEY = "r.hash = ? AND r.state = ? AND r.token = ?"


def _select(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> list[Row]:
    statement = f"""SELECT r.hash, r.state, r.token, p.name, r.place, r.stored, r.size
                      FROM record r JOIN pack p ON p.id = r.pack WHERE {where}"""  # noqa: S608  our own words
    return [
        Row(digest.hex(), State(state), token, Place(pack, place, stored, size))
        for digest, state, token, pack, place, stored, size in connection.execute(statement, values)
    ]


def _pack_id(connection: sqlite3.Connection, name: str) -> int:
    connection.execute("INSERT OR IGNORE INTO pack (name, indexed) VALUES (?, 0)", (name,))
    number: int = connection.execute("SELECT id FROM pack WHERE name = ?", (name,)).fetchone()[0]
    return number
