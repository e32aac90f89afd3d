"""Reports of clocks that differ from PostgreSQL's clock.

No part of the service relies on clocks other than PostgreSQL's: all times that the service compares are PostgreSQL's.
But if a clock is wrong, times in logs disagree and certificates may seem invalid, so an operator should know.
"""

from __future__ import annotations

import time

import redis
import structlog

from storage.models import clock
from storage.redis_connection import connect

log = structlog.get_logger(__name__)

TOLERATED = 5.0  # seconds
KEPT_SECONDS = 60
KEY = "occ:clocks"

_reported: dict[str, bool] = {}


def difference() -> float:
    """The seconds that this process's clock is ahead of PostgreSQL's, without the time that the query took."""
    start = time.time()
    theirs = clock.now().timestamp()
    return min(time.time() - theirs, 0.0) or max(start - theirs, 0.0)


def report(program: str) -> None:
    """Compare this process's clock with PostgreSQL's; a difference is logged when it begins and when it ends.

    While a difference lasts, ``differences`` shows it under the name ``program``.
    """
    ahead = difference()
    is_off = abs(ahead) > TOLERATED
    if is_off != _reported.get(program, False):
        say = log.warning if is_off else log.info
        say("clock.differs" if is_off else "clock.agrees", program=program, seconds=round(ahead, 1))
        _reported[program] = is_off
    try:
        if is_off:
            connect().hset(KEY, program, f"{ahead:.1f}")
            connect().expire(KEY, KEPT_SECONDS)
        else:
            connect().hdel(KEY, program)
    except redis.RedisError:
        return


def differences() -> dict[str, float]:
    """The programs whose clocks differ: program → seconds that its clock is ahead of PostgreSQL's clock."""
    try:
        answer: dict[bytes, bytes] = connect().hgetall(KEY)  # type: ignore[assignment]  # The client answers bytes.
        offsets = {name.decode(): float(seconds) for name, seconds in answer.items()}
    except (redis.RedisError, ValueError):
        offsets = {}
    if abs(ahead := difference()) > TOLERATED:
        offsets["this API"] = ahead
    return offsets
