"""The checks of Redis, which holds only hints: its troubles lose no file, but lost sketches have to be rebuilt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis
from django.conf import settings

from occsite.doctor.findings import Finding, ok, problem, warning

OLDEST = 7  # major version
NEARLY_FULL = 0.9


def keeps_what_it_is_given() -> Iterator[Finding]:
    try:
        # The service's own client would not ask a Redis that failed a moment ago.
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2) as client:
            info: dict[str, Any] = client.info()
            client.set("occ:doctor", 1, ex=60)
            found = [*_version(info), *_memory(info), *_persistence(info, client)]
    except redis.RedisError as error:
        yield problem(
            f"Redis does not answer, or refuses: {' '.join(str(error).split())}",
            "start it, or correct REDIS_URL; until then sketches are not used, and uploads and downloads go on",
        )
        return
    yield from found
    if not found:
        version = info.get("valkey_version") or info.get("redis_version")
        yield ok(f"{info.get('server_name', 'redis')} {version} answers, evicts nothing, and keeps its data on a disk")


def _version(info: dict[str, Any]) -> Iterator[Finding]:
    version = str(info.get("redis_version", "0"))
    if int(version.partition(".")[0]) < OLDEST:
        yield problem(f"Redis {version} is too old", f"use Redis {OLDEST} or later, or Valkey")


def _memory(info: dict[str, Any]) -> Iterator[Finding]:
    policy, most, used = info.get("maxmemory_policy"), int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if policy and policy != "noeviction":
        yield problem(
            f"maxmemory-policy is {policy}: Redis drops sketches when its memory is full",
            "set maxmemory-policy noeviction",
        )
    if most and used > NEARLY_FULL * most:
        yield warning(f"{100 * used // most} % of maxmemory is used", "raise maxmemory")


def _persistence(info: dict[str, Any], client: redis.Redis) -> Iterator[Finding]:
    if info.get("aof_last_write_status", "ok") != "ok" or info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield warning("Redis cannot save its data", "make room on its disk, and read its log")
    if not info.get("aof_enabled") and not _saves(client):
        yield warning("Redis keeps nothing on a disk: after its restart all sketches are rebuilt", "set appendonly yes")


def _saves(client: redis.Redis) -> bool:
    """True if Redis writes snapshots, or if the service's account is not allowed to ask."""
    try:
        return bool(client.config_get("save").get("save"))
    except redis.RedisError:
        return True
