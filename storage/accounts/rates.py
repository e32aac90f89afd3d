"""How often a key or an address may ask: a limit of requests in any span of time, shared by all processes.

The ``limits`` library counts in Redis. While Redis does not answer, every request is let through.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache

import redis
import structlog
from limits import RateLimitItem, parse
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter

from storage.conf import configuration
from storage.exceptions import TooManyRequests
from storage.redis_connection import connect

log = structlog.get_logger(__name__)


def take(subject: str) -> None:
    """Count one request of a subject, such as a key or an address, if RATE_LIMIT sets a limit.

    Raises:
        TooManyRequests: the subject has used up its requests.
    """
    rate = configuration().rate_limit
    if not rate:
        return
    limit, limiter = _limit(rate), _limiter()
    try:
        if limiter.hit(limit, subject):
            return
        reset_at, _ = limiter.get_window_stats(limit, subject)
    except redis.RedisError:
        return
    # A clock that jumps must not make the client wait longer than a whole window.
    wait = min(max(1, math.ceil(reset_at - time.time())), limit.get_expiry())
    log.info("request.limited", subject=subject, limit=rate, wait=wait)
    raise TooManyRequests(f"the limit is {rate}", limit=limit.amount, wait=wait)


@lru_cache(maxsize=8)
def _limit(rate: str) -> RateLimitItem:
    return parse(rate)


@lru_cache(maxsize=1)
def _limiter() -> MovingWindowRateLimiter:
    """The limiter of this process. A moving window lets through exactly as many requests in any span as it should."""
    storage = RedisStorage("redis://", connection_pool=connect().connection_pool, key_prefix="occ:rates")
    return MovingWindowRateLimiter(storage)
