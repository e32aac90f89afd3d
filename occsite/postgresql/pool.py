"""A pool of connections to PostgreSQL, each made by the thread that needs it.

psycopg_pool makes connections in threads of its own, and pauses longer after each failure: a PostgreSQL that was back
after 0.3 s was used again after 16 to 20 s, and a request waited a second for each broken connection that it met. The
pool of this module replaces a broken connection at once, and the caller gets PostgreSQL's own words if no new
connection can be made.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from threading import BoundedSemaphore, Lock
from typing import Any, cast

import psycopg
from psycopg.pq import TransactionStatus

from occsite.postgresql.connection import ImpatientConnection

QUEUE_SECONDS = 5.0  # A thread waits this long for another thread to give a connection back.
OUTAGE_SECONDS = 5.0  # For this time after the first failure, threads go on trying, because a restart takes less time.
RETRY_PAUSE = 0.05  # seconds
IDLE_SECONDS = 60.0  # A connection that was not needed for this long is closed.
LIFE_SECONDS = 3600.0  # A connection is closed at this age, because the memory of its server process grows.


class Pool:
    """Lends connections to threads; Django's backend and ``storage.models.statements.prepared`` borrow them."""

    def __init__(self, connect: Callable[[], ImpatientConnection], size: int) -> None:
        """
        Args:
            connect: makes a connection that is ready for use.
            size: how many connections may be lent at one time.
        """
        self._connect = connect
        self._places = BoundedSemaphore(size)
        self._size = size
        self._idle: deque[tuple[float, ImpatientConnection]] = deque()
        self._made_at: dict[ImpatientConnection, float] = {}
        self._lock = Lock()
        self._pid = os.getpid()
        self._away_since: float | None = None

    def open(self) -> None:
        """Django calls this method before it borrows a connection; a forked process begins with a pool of its own."""
        with self._lock:
            if self._pid == os.getpid():
                return
            # The connections belong to the parent process. If this process closed them, the parent would lose them. So
            # this process keeps the connections and does not use them.
            self._parents = (self._idle, self._made_at)
            self._idle, self._made_at = deque(), {}
            self._places = BoundedSemaphore(self._size)
            self._pid = os.getpid()

    def getconn(self) -> ImpatientConnection:
        """Borrow a connection that works.

        Raises:
            psycopg.OperationalError: PostgreSQL refuses, does not answer, or all connections are lent.
        """
        if not self._places.acquire(timeout=QUEUE_SECONDS):
            raise psycopg.OperationalError(f"none of this process's {self._size} connections became free")
        try:
            lent = self._take_idle() or self._make()
        except BaseException:
            self._places.release()
            raise
        lent._pool = cast(Any, self)  # Django gives the connection back to the pool that this attribute names.
        return lent

    def putconn(self, connection: psycopg.Connection[Any]) -> None:
        """Take a connection back; an open transaction is rolled back, a broken connection is dropped."""
        assert isinstance(connection, ImpatientConnection)
        connection._pool = None
        try:
            if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                connection.rollback()
        except psycopg.Error:
            connection.close()
        now = time.monotonic()
        reusable = not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
        with self._lock:
            if reusable and now - self._made_at.get(connection, now) < LIFE_SECONDS:
                self._idle.append((now, connection))
                surplus = self._take_unneeded(now)
            else:
                surplus = [connection]
                self._made_at.pop(connection, None)
        self._places.release()
        for unneeded in surplus:
            unneeded.close()

    def close(self) -> None:
        """Close the connections that are not lent."""
        with self._lock:
            idle, self._idle, self._made_at = self._idle, deque(), {}
        for _, connection in idle:
            connection.close()

    def _take_idle(self) -> ImpatientConnection | None:
        """The sound connection that was given back last, or None; broken connections are dropped."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                _, connection = self._idle.pop()
            if connection.is_sound():
                return connection
            with self._lock:
                self._made_at.pop(connection, None)
            connection.close()

    def _take_unneeded(self, now: float) -> list[ImpatientConnection]:
        unneeded = []
        while self._idle and now - self._idle[0][0] > IDLE_SECONDS:
            _, connection = self._idle.popleft()
            self._made_at.pop(connection, None)
            unneeded.append(connection)
        return unneeded

    def _make(self) -> ImpatientConnection:
        """Connect; in the first moments of an outage, try again and again."""
        while True:
            try:
                connection = self._connect()
            except psycopg.OperationalError:
                now = time.monotonic()
                self._away_since = self._away_since or now
                if now - self._away_since >= OUTAGE_SECONDS:
                    raise
                time.sleep(RETRY_PAUSE)
                continue
            self._away_since = None
            with self._lock:
                self._made_at[connection] = time.monotonic()
            return connection
