"""How many transfers an owner has at once: a limit that all processes share.

Each transfer has a lease in Redis, which its process renews. If a process dies, its leases expire, so its transfers
soon no longer count. While Redis does not answer, no transfer is refused; the lease of a transfer is recorded as soon
as Redis is back.

A small download takes a millisecond, and two calls of Redis would take a third of a millisecond. So a process keeps a
lease for a moment after its transfer, for the owner's next transfer, as long as the owner is far from the limit.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
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
KEEP_SECONDS = 0.1  # A lease without a transfer is given back after this time.
GOOD_SECONDS = 1.0  # A process relies for this long on the number of an owner's leases that Redis has told it.
KEY = "occ:transfers:"
BRIEF, LONG = b"b", b"l"  # The first byte of a lease's token: whether its process may keep it for the next transfer.
FULL, PERHAPS_FULL = 0, -1

# A lease whose end lies too far in the future was taken before Redis's clock was set back, and is removed. If the
# transfer of a removed lease is still under way, the lease is renewed soon.
#
# When the limit is reached, other processes may be keeping leases without a transfer. If that is possible, the answer
# is -1 and not 0. A process keeps only leases that were taken less than GOOD_SECONDS ago, while at most half of the
# limit was in use. The tokens of such leases begin with b.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + ARGV[1] + 1, '+inf')
local count = redis.call('ZCARD', KEYS[1]) + 1
if count > tonumber(ARGV[2]) then
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now + ARGV[1] - ARGV[4], '+inf')) do
    if token:sub(1, 1) == 'b' then return -1 end
  end
  return 0
end
redis.call('ZADD', KEYS[1], now + ARGV[1], (count * 2 <= tonumber(ARGV[2]) and 'b' or 'l') .. ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return count
"""
_RENEW = """
local time = redis.call('TIME')
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], time[1] + time[2] / 1000000 + ARGV[1], ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class Lease:
    """A lease. It may serve several transfers of one owner, one after another."""

    def __init__(self, owner: str, most: int) -> None:
        """Take a lease in Redis.

        Args:
            owner: the owner's id; transfers of one id are counted together.
            most: the number of transfers that the owner may have at once.

        Raises:
            TooManyOwnTransfers: the owner has ``most`` transfers under way already.
        """
        self.key = KEY + owner
        token = uuid.uuid4().bytes
        try:
            count = self._take(most, token)
            if count == PERHAPS_FULL:
                time.sleep(2 * KEEP_SECONDS)  # In this time, other processes give back leases without transfers.
                count = self._take(most, token)
        except redis.RedisError:
            count = most
        if count in (FULL, PERHAPS_FULL):
            log.info("transfer.limited", owner=owner, limit=most)
            raise TooManyOwnTransfers(f"the limit is {most} transfers at once")
        self._is_brief = count * 2 <= most
        self.token = (BRIEF if self._is_brief else LONG) + token
        self._taken_at = time.monotonic()

    def _take(self, most: int, token: bytes) -> int:
        return int(_script(_TAKE)(keys=[self.key], args=[LEASE_SECONDS, most, token, GOOD_SECONDS]))

    @property
    def may_be_kept(self) -> bool:
        """True if the process may keep the lease for the owner's next transfer."""
        return self._is_brief and time.monotonic() < self._taken_at + GOOD_SECONDS - 2 * KEEP_SECONDS


def begin(owner: str, most: int) -> Lease:
    """Begin a transfer; its lease ends with ``end``. The arguments and errors are those of ``Lease``."""
    if (lease := _leases.reuse(KEY + owner)) is None:
        lease = Lease(owner, most)
        _leases.add(lease)
    return lease


def end(lease: Lease) -> None:
    """End a transfer. If Redis does not answer, the lease expires by itself."""
    if not _leases.keep(lease):
        _give_back([lease])


class _Leases:
    """The leases of this process. While the process has leases, a thread renews them, and gives back leases that were
    kept and not used.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._leases: set[Lease] = set()
        self._kept: defaultdict[str, list[tuple[Lease, float]]] = defaultdict(list)
        self._thread: Thread | None = None

    def reuse(self, key: str) -> Lease | None:
        """Begin a transfer with a lease that was kept after another transfer; None if there is none.

        A lease is always either in use or kept. Otherwise a renewal at the same time would take it for one that has
        ended, and give it back.
        """
        with self._lock:
            kept = self._kept.get(key)
            if not kept:
                return None
            lease, _ = kept.pop()
            self._leases.add(lease)
            return lease

    def add(self, lease: Lease) -> None:
        with self._lock:
            self._leases.add(lease)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()

    def keep(self, lease: Lease) -> bool:
        """End the transfer of a lease. False if the lease must be given back now."""
        with self._lock:
            self._leases.discard(lease)
            if not lease.may_be_kept:
                return False
            self._kept[lease.key].append((lease, time.monotonic()))
            return True

    def _run(self) -> None:
        renewed_at = time.monotonic()
        while True:
            time.sleep(min(KEEP_SECONDS / 2, RENEW_SECONDS))
            _give_back(self._kept_in_vain())
            with self._lock:
                leases = set(self._leases)
                if not leases and not self._kept:
                    self._thread = None
                    return
            if time.monotonic() - renewed_at >= RENEW_SECONDS:
                self._renew(leases)
                renewed_at = time.monotonic()

    def _kept_in_vain(self) -> list[Lease]:
        before = time.monotonic() - KEEP_SECONDS
        with self._lock:
            old = [lease for kept in self._kept.values() for lease, since in kept if since < before]
            for key, kept in list(self._kept.items()):
                self._kept[key] = [entry for entry in kept if entry[1] >= before]
                if not self._kept[key]:
                    del self._kept[key]
        return old

    def _renew(self, leases: set[Lease]) -> None:
        tokens: defaultdict[str, list[bytes]] = defaultdict(list)
        for lease in leases:
            tokens[lease.key].append(lease.token)
        try:
            for key, own in tokens.items():
                _script(_RENEW)(keys=[key], args=[LEASE_SECONDS, *own])
        except redis.RedisError:
            return  # The next round tries to renew the leases again.
        # A transfer may have ended since the leases were listed, and its lease may have been given back before it was
        # renewed.
        with self._lock:
            ended = leases - self._leases - {lease for kept in self._kept.values() for lease, _ in kept}
        _give_back(ended)


def _give_back(leases: Iterable[Lease]) -> None:
    try:
        for lease in leases:
            connect().zrem(lease.key, lease.token)
    except redis.RedisError:
        return


@lru_cache(maxsize=2)
def _script(source: str) -> Script:
    return connect().register_script(source)


_leases = _Leases()
