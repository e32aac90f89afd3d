"""This process's connections to Redis: no call waits long, and while Redis is away, nearly no call waits at all.

Redis holds only hints (invariant 5). If Redis is away or hangs, one call of a process at a time tries it, and may reach
its time limit. All other calls of the process are refused at once.
"""

from __future__ import annotations

import time
from functools import lru_cache
from threading import Lock
from typing import Any

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

CONNECT_SECONDS = 1
ANSWER_SECONDS = 2  # No call asks Redis to block for as long as this.
PAUSE = 1.0  # After a failure, no call is tried for this many seconds.


class Breaker:
    """Refuses calls for a pause after each failure. Then the result of one call decides for all calls."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._failed = False
        self._next_try = 0.0

    def enter(self) -> None:
        """Begin a call.

        Raises:
            redis.ConnectionError: Redis failed a moment ago.
        """
        if not self._failed:
            return
        with self._lock:
            now = time.monotonic()
            if self._failed and now < self._next_try:
                raise redis.ConnectionError("not asked: Redis did not answer a moment ago")
            # This call tries Redis for all other calls, which are refused until the result is known.
            self._next_try = now + CONNECT_SECONDS + ANSWER_SECONDS

    def succeeded(self) -> None:
        self._failed = False

    def failed(self) -> None:
        with self._lock:
            self._failed = True
            self._next_try = time.monotonic() + PAUSE


class GuardedPool(redis.ConnectionPool):
    """A connection pool whose breaker notices every connection that fails."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.breaker = Breaker()
        super().__init__(*args, **kwargs)

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        self.breaker.enter()
        try:
            return super().get_connection(*args, **kwargs)
        except (redis.ConnectionError, redis.TimeoutError):
            self.breaker.failed()
            raise

    def release(self, connection: Any) -> None:
        # redis-py closes a connection that was cut or did not answer in time, and then releases it to the pool.
        if not connection.is_connected:
            self.breaker.failed()
        else:
            self.breaker.succeeded()
        super().release(connection)


@lru_cache(maxsize=1)
def connect() -> redis.Redis:
    """The client that all threads of this process share."""
    pool = GuardedPool.from_url(
        settings.REDIS_URL,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    return redis.Redis(connection_pool=pool)
