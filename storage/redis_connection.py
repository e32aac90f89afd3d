"""This process's connections to Redis: no call waits long, and while Redis is away no call waits at all.

Redis is a hint (DESIGN, invariant 5). A Redis that is away or hangs must cost the threads of a process one time limit
now and then, and not one for each call.
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
ANSWER_SECONDS = 2  # Longer than any call lets Redis wait for something to happen.
PAUSE = 1.0  # After a failure, no call is tried for this many seconds.


class Breaker:
    """Refuses calls for a pause after each failure, and then lets one call find out."""

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
            # This call finds out for all others, which are refused until it is known.
            self._next_try = now + CONNECT_SECONDS + ANSWER_SECONDS

    def succeeded(self) -> None:
        self._failed = False

    def failed(self) -> None:
        with self._lock:
            self._failed = True
            self._next_try = time.monotonic() + PAUSE


class GuardedPool(redis.ConnectionPool):
    """A pool whose breaker sees every connection that fails, whoever uses it."""

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
        # redis-py closes a connection that was cut or did not answer in time, and then gives it back.
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
