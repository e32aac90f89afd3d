"""How many transfers an owner has at once: a limit that all processes share.

Each transfer has a lease in Redis, which its process renews. The leases of a process that dies run out, so its
transfers soon count no more. While Redis does not answer, every transfer is let through; its lease is recorded as soon
as Redis is back.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from functools import lru_cache
from threading import Lock, Thread

import redis
import structlog
from redis.commands.core import Script

from storage.exceptions import TooManyOwnTransfers
from storage.redis_connection import connect

log = structlog.get_logger(__name__)

LEASE_SECONDS = 30
RENEW_SECONDS = 10.0
KEY = "occ:transfers:"

# A lease that ends later than any lease can is from before Redis's clock was set back. If its transfer is still under
# way, the lease is renewed soon.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + ARGV[1] + 1, '+inf')
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
_RENEW = """
local time = redis.call('TIME')
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], time[1] + time[2] / 1000000 + ARGV[1], ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class Lease:
    """The lease of one transfer."""

    def __init__(self, owner: str, most: int) -> None:
        """Begin a transfer.

        Args:
            owner: the owner's id; transfers of one id are counted together.
            most: the number of transfers that the owner may have at once.

        Raises:
            TooManyOwnTransfers: the owner has as many transfers under way.
        """
        self.key = KEY + owner
        self.token = uuid.uuid4().bytes
        try:
            is_taken = _script(_TAKE)(keys=[self.key], args=[LEASE_SECONDS, most, self.token])
        except redis.RedisError:
            is_taken = True
        if not is_taken:
            log.info("transfer.limited", owner=owner, limit=most)
            raise TooManyOwnTransfers(f"the limit is {most} transfers at once")
        _renewer.add(self)

    def end(self) -> None:
        """End the transfer. If Redis does not answer, the lease runs out by itself."""
        _renewer.remove(self)
        _give_back([self])


class _Renewer:
    """Renews the leases of this process, in a thread that lives as long as there are any."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._leases: set[Lease] = set()
        self._thread: Thread | None = None

    def add(self, lease: Lease) -> None:
        with self._lock:
            self._leases.add(lease)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()

    def remove(self, lease: Lease) -> None:
        with self._lock:
            self._leases.discard(lease)

    def _run(self) -> None:
        while True:
            time.sleep(RENEW_SECONDS)
            with self._lock:
                leases = set(self._leases)
                if not leases:
                    self._thread = None
                    return
            self._renew(leases)

    def _renew(self, leases: set[Lease]) -> None:
        tokens: defaultdict[str, list[bytes]] = defaultdict(list)
        for lease in leases:
            tokens[lease.key].append(lease.token)
        try:
            for key, own in tokens.items():
                _script(_RENEW)(keys=[key], args=[LEASE_SECONDS, *own])
        except redis.RedisError:
            return  # The next round tries it again.
        # A transfer may have ended since the leases were listed, and its lease have been given back before it was
        # renewed.
        with self._lock:
            ended = leases - self._leases
        _give_back(ended)


def _give_back(leases: set[Lease] | list[Lease]) -> None:
    try:
        for lease in leases:
            connect().zrem(lease.key, lease.token)
    except redis.RedisError:
        return


@lru_cache(maxsize=2)
def _script(source: str) -> Script:
    return connect().register_script(source)


_renewer = _Renewer()
