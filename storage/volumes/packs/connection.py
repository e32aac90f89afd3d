"""The connection to the index of a volume of packs: SQLite, as one process has it open.

One connection serves all threads of a process, under a lock. No connection crosses a fork: SQLite would take the
parent's locks for the child's own. The connections of a process are closed before a fork. The next use of an index
opens its connection again.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import struct
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from storage.exceptions import VolumeOffline

NAME = "index.sqlite"
DRAFT = f"{NAME}.new"  # an index that is not finished yet
ASIDE = f"{NAME}.old"  # the old index, while a new index is made
SERIAL = "serial"
FORMAT = 1
# LOCK_SECONDS and BUSY_SECONDS are less than a lane's time limit: the volume of a locked index is offline, and blocks
# no caller.
LOCK_SECONDS = 8.0
BUSY_SECONDS = 5.0
FORK_SECONDS = 5.0
LOG_PAGES = 1000  # SQLite moves the log into the database when the log has this many pages, as by default.
# While room is scarce, SQLite moves the log into the database after each change. So the log stays small,
# and the database takes the room for each change while there still is some.
TIGHT_LOG_PAGES = 1

# Hashes come in no order: with a small cache, each row would cost the writing of a page.
_DRAFT = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -262144")
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_SERIAL = struct.Struct("<Q")


class IndexDamaged(VolumeOffline):
    """The index cannot be believed: it has to be made again from the packs."""


class Connection:
    """The one connection of a process to an index. Thread-safe.

    Every method may raise ``OSError``, or ``IndexDamaged``.

    Attributes:
        path: the path of the database.
        inode: the inode of the file that was opened first.
    """

    def __init__(self, path: Path, fingerprint: bytes, *, draft: bool = False) -> None:
        """Open an index that is there. An index is never made here, because the directory may be an empty mount
        point.

        Args:
            path: the path of the database.
            fingerprint: the volume's fingerprint, as the index must have it.
            draft: True for an index that no other process uses yet. A draft is not synced before it is finished.

        Raises:
            IndexDamaged: the file is missing, damaged, of another format or volume, or older than the volume.
        """
        self.path = path
        self._fingerprint = fingerprint
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._serial: int | None = None  # the descriptor of the file ``serial``
        self._durable: bool | None = None
        self._must_shrink = False
        self._is_tight = False
        self._log_pages = LOG_PAGES
        self._is_draft = draft
        self._is_lost = False
        with self.reading():
            self.inode = path.stat().st_ino
        _connections.add(self)

    def __del__(self) -> None:
        # Another thread of the parent may have used the connection at the fork. Then the child must not touch it.
        if not self._is_lost:
            self._disconnect()

    def close(self) -> None:
        """Close the connection. The next use opens another connection."""
        with self._lock:
            self._disconnect()

    @contextmanager
    def changing(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """A transaction. If ``durable``, it raises the serial, and is on the disk when the ``with`` block has ended."""
        with self.reading() as connection:
            if self._must_shrink:
                # The file system was full. If the caller has made a little room, SQLite can move the log into the
                # database, and all the room of the log becomes free.
                with suppress(sqlite3.Error):
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    self._must_shrink = False
            self._prepare(connection, durable=durable)
            connection.execute("BEGIN IMMEDIATE")
            try:
                if durable:
                    connection.execute("UPDATE volume SET serial = serial + 1")
                yield connection
                serial = connection.execute("SELECT serial FROM volume").fetchone()[0] if durable else None
                connection.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                self._must_shrink = isinstance(error, sqlite3.Error) and error.sqlite_errorcode in _FULL
                self._is_tight |= self._must_shrink
                raise
            self._is_tight &= durable  # New records were added, so there is room again.
            if serial is not None and self._serial is not None:
                write_serial(self._serial, serial)

    def _prepare(self, connection: sqlite3.Connection, *, durable: bool) -> None:
        if durable is not self._durable and not self._is_draft:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        pages = TIGHT_LOG_PAGES if self._is_tight else LOG_PAGES
        if pages != self._log_pages:
            connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            self._log_pages = pages

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time."""
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            raise VolumeOffline(f"{self.path} is busy")
        try:
            if self._is_lost:
                raise VolumeOffline(f"this process was forked while {self.path} was in use")
            with as_os_errors(self.path):
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
        finally:
            self._lock.release()

    def _connect(self) -> sqlite3.Connection:
        connection = self._open()
        try:
            found = connection.execute("SELECT format, fingerprint, serial FROM volume").fetchone()
            if found is None or found[:2] != (FORMAT, self._fingerprint):
                raise IndexDamaged(f"{self.path} is of another volume or format")
            with suppress(OSError):
                self._serial = os.open(self.path.with_name(SERIAL), os.O_RDWR | os.O_CLOEXEC)
            if self._serial is not None and found[2] < read_serial(self._serial):
                raise IndexDamaged(f"{self.path} is older than its volume")
        except BaseException:
            self._disconnect(connection)
            raise
        self._durable, self._log_pages = None, LOG_PAGES
        if self._is_draft:
            for pragma in _DRAFT:
                connection.execute(f"PRAGMA {pragma}")
        return connection

    def finish(self) -> None:
        """End a draft: from now on it is an index that processes share."""
        with self.reading() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        self.close()

    def _open(self) -> sqlite3.Connection:
        connection = _opened(self.path)
        try:
            connection.execute("SELECT 1 FROM volume").fetchone()
        except sqlite3.Error:
            connection.close()
            if not _is_read_only(self.path):
                raise
            return _opened_copy(self.path)
        return connection

    def _disconnect(self, connection: sqlite3.Connection | None = None) -> None:
        connection, self._connection = connection or self._connection, None
        serial, self._serial = self._serial, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()
        if serial is not None:
            os.close(serial)

    def before_fork(self) -> bool:
        """Close the connection and hold the lock until after the fork; False if another thread keeps it busy."""
        if not self._lock.acquire(timeout=FORK_SECONDS):
            return False
        self._disconnect()
        return True

    def after_fork(self, *, in_child: bool, closed: bool) -> None:
        """Release the lock, or make a new lock in a child. A child that lost its connection cannot use the index."""
        if in_child:
            self._lock = threading.Lock()
            self._is_lost = not closed
        elif closed:
            self._lock.release()


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _is_read_only(path: Path) -> bool:
    return path.exists() and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _opened_copy(path: Path) -> sqlite3.Connection:
    """Open a copy of an index on a file system that is read-only: SQLite would have to write next to the original."""
    with tempfile.TemporaryDirectory(prefix="occ-index-") as folder:
        copy = Path(folder) / NAME
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        connection = _opened(copy)
        # After the first read SQLite has opened all its files, and needs their names no more.
        connection.execute("SELECT 1 FROM volume").fetchone()
        connection.execute("PRAGMA query_only = ON")
        return connection


@contextmanager
def as_os_errors(path: Path) -> Iterator[None]:
    """Raise the errors of SQLite as the errors of the operating system that they come from."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        primary = code & 0xFF
        words = f"{path}: {error}"
        if code in _FULL:
            raise OSError(errno.ENOSPC, words) from error
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT):
            raise IndexDamaged(words) from error
        if primary == sqlite3.SQLITE_READONLY:
            raise OSError(errno.EROFS, words) from error
        if primary == sqlite3.SQLITE_CANTOPEN:
            _require_openable(path)
        raise OSError(errno.EIO, words) from error


def _require_openable(path: Path) -> None:
    """Find out why SQLite could not open its three files: SQLite does not say.

    Raises:
        IndexDamaged: there is no index.
        OSError: the process lacks descriptors or rights, or there is no room.
    """
    try:
        with ExitStack() as opened:
            for _ in range(3):
                opened.callback(os.close, os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError as error:
        raise IndexDamaged(f"{path} is missing") from error
    room = os.statvfs(path)
    if not room.f_bavail or (room.f_files and not room.f_favail):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


# -- the serial --------------------------------------------------------------
# The file ``serial`` has the number of the last durable change. An index with a smaller number is an older index that
# was put back.


def read_serial(descriptor: int) -> int:
    """The serial in the file; 0 for a file that was not written as a whole."""
    data = os.pread(descriptor, _SERIAL.size, 0)
    return int(_SERIAL.unpack(data)[0]) if len(data) == _SERIAL.size else 0


def write_serial(descriptor: int, serial: int) -> None:
    """Write the serial in place, without a sync: an older number after a power cut is safe."""
    with suppress(OSError):
        os.pwrite(descriptor, _SERIAL.pack(serial), 0)


# -- forks -------------------------------------------------------------------

_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_at_fork: list[tuple[Connection, bool]] = []


def _before_fork() -> None:
    _at_fork[:] = [(each, each.before_fork()) for each in list(_connections)]


def _after_fork(in_child: bool) -> None:
    for each, closed in _at_fork:
        each.after_fork(in_child=in_child, closed=closed)
    _at_fork.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(False),
    after_in_child=lambda: _after_fork(True),
)
