"""How often a key or an address may ask: a limit of requests in any span of time, shared by all processes.

The ``limits`` library counts in Redis. While Redis does not answer, no request is refused.

A call of Redis would take a tenth of the time of a small download. If the limit is high, a process therefore counts a
block of future requests of a busy client in one call, and then lets these requests through without a call.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Lock

import redis
import structlog
from limits import RateLimitItem, parse
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter

from storage.conf import configuration
from storage.exceptions import TooManyRequests
from storage.redis_connection import connect

log = structlog.get_logger(__name__)

LOGINS_OF_ADDRESS = "10/5 minutes"
SIGN_ONS_OF_ADDRESS = "30/5 minutes"  # Each login with an OpenID provider sends two requests.
LOGINS_OF_NAME = "20/5 minutes"  # A name may be tried from many addresses.
SUBSCRIBER = 64  # The provider sets this many first bits of an IPv6 address; the subscriber chooses the others.


SHARE = 1000  # A block is at most one SHARE-th of the limit. Below a limit of 2,000 there are no blocks.
BLOCK_SECONDS = 0.1  # After this time, the client loses the requests that are left in its block.
REMEMBERED = 10_000  # The most clients whose blocks a process remembers.


def take(subject: str) -> None:
    """Count one request of a subject, such as a key or an address, if RATE_LIMIT sets a limit.

    Raises:
        TooManyRequests: the subject has used up its requests.
    """
    if rate := configuration().rate_limit:
        _take(rate, subject)


def take_login(address: str, username: str) -> None:
    """Count one attempt to log in with a password, by the client's address and by the name.

    Raises:
        TooManyRequests: the address, or all addresses together for this name, have used up their attempts.
    """
    _take(LOGINS_OF_ADDRESS, f"login:{origin(address)}")
    # The name is not logged or stored as it is: people type their password into the wrong field.
    _take(LOGINS_OF_NAME, f"login:{hashlib.sha256(username.casefold().encode(errors='replace')).hexdigest()}")


def take_sign_on(address: str) -> None:
    """Count one step of a login with an OpenID provider, by the client's address.

    Raises:
        TooManyRequests: the address has used up its steps.
    """
    _take(SIGN_ONS_OF_ADDRESS, f"sign-on:{origin(address)}")


@lru_cache(maxsize=1024)
def origin(address: str) -> str:
    """The subject of the requests from an address: the address itself, or the /64 network of an IPv6 address."""
    try:
        client = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(client, IPv6Address):
        return str(client)
    if client.ipv4_mapped is not None:
        return str(client.ipv4_mapped)
    return str(ip_network((client, SUBSCRIBER), strict=False))


def _take(rate: str, subject: str) -> None:
    limit, limiter = _limit(rate), _limiter()
    size = _blocks.next_size(limit, subject)
    if size == 0:
        return
    try:
        for cost in (size, 1) if size > 1 else (1,):  # If a whole block exceeds the limit, one request may still fit.
            if limiter.hit(limit, subject, cost=cost):
                _blocks.add(limit, subject, cost)
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
    """The limiter of this process. A moving window allows exactly as many requests in any span as the limit says."""
    storage = RedisStorage("redis://", connection_pool=connect().connection_pool, key_prefix="occ:rates")
    return MovingWindowRateLimiter(storage)


@dataclass
class _Block:
    """Requests of a client that Redis has counted.

    Attributes:
        size: the number of requests that were counted together.
        left: how many of the counted requests have not come yet.
        ends_at: the time until which the requests may come, in seconds of the monotonic clock.
    """

    size: int
    left: int
    ends_at: float


class _Blocks:
    """The blocks of this process. A client that uses up a block before it ends gets a block of twice the size."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._blocks: dict[tuple[RateLimitItem, str], _Block] = {}

    def next_size(self, limit: RateLimitItem, subject: str) -> int:
        """The number of requests to count next in Redis; 0 if the present request has been counted."""
        with self._lock:
            block = self._blocks.get((limit, subject))
            if block is None or time.monotonic() >= block.ends_at:
                return 1
            if block.left:
                block.left -= 1
                return 0
            return max(1, min(2 * block.size, limit.amount // SHARE))

    def add(self, limit: RateLimitItem, subject: str, size: int) -> None:
        """Note that Redis has counted the present request, and ``size`` - 1 others."""
        now = time.monotonic()
        with self._lock:
            if len(self._blocks) >= REMEMBERED:
                self._blocks.clear()
            block = self._blocks.get((limit, subject))
            left = size - 1
            if block is not None and now < block.ends_at:
                # Several threads may have asked Redis at once; together they keep at most the requests of one block.
                left = min(left + block.left, max(left, block.size - 1))
            self._blocks[limit, subject] = _Block(size, left, now + BLOCK_SECONDS)


_blocks = _Blocks()
