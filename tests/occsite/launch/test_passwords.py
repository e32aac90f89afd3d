"""The passwords of databases in containers, and what the programs may do in Redis."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis
from celery import Celery
from django.conf import settings

from occsite.addresses import broker_url
from occsite.launch.passwords import RIGHTS, USER, make_passwords, users_of_redis
from sketches.store import SketchStore
from storage import counters
from storage.accounts import rates
from storage.exceptions import ConfigurationError
from storage.jobs import wakeups
from storage.queues import Queue
from storage.redis_connection import connect


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("postgres", "redis"):
        (tmp_path / name).mkdir()
    return tmp_path


def read(folder: Path, database: str) -> str:
    return (folder / database / "password").read_text()


def test_the_first_start_makes_passwords_and_later_ones_keep_them(folder: Path) -> None:
    make_passwords(folder, {})
    first = {database: read(folder, database) for database in ("postgres", "redis")}
    assert len(set(first.values())) == 2
    assert min(map(len, first.values())) > 40
    make_passwords(folder, {})
    assert {database: read(folder, database) for database in first} == first
    assert (folder / "redis" / "users.acl").read_text() == users_of_redis(first["redis"])
    assert first["redis"] not in users_of_redis(first["redis"]), "Redis itself has a digest only"
    assert {path.name for path in folder.rglob("*.new")} == set()
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o444}


def test_an_operator_may_choose_the_passwords(folder: Path) -> None:
    make_passwords(folder, {})
    make_passwords(folder, {"POSTGRES_PASSWORD": "chosen-by-me"})
    assert read(folder, "postgres") == "chosen-by-me"
    for bad in ("occ", "it's quoted", "a" * 201, "1234567\n8"):
        with pytest.raises(ConfigurationError, match="POSTGRES_PASSWORD needs") as refused:
            make_passwords(folder, {"POSTGRES_PASSWORD": bad})
        assert bad not in str(refused.value)
    assert read(folder, "postgres") == "chosen-by-me"


# -- rights in Redis -----------------------------------------------------------


def run(client: redis.Redis, *words: str) -> Any:
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


@pytest.fixture
def narrow_url(redis_client: redis.Redis) -> Iterator[str]:
    """The URL of a user with the rights that the programs have in compose."""
    run(redis_client, "ACL", "SETUSER", USER, "reset", "on", ">password", *RIGHTS.split())
    parts = urlsplit(os.environ["REDIS_URL"])
    yield parts._replace(netloc=f"{USER}:password@{parts.netloc.rpartition('@')[2]}").geturl()
    run(redis_client, "ACL", "DELUSER", USER)


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "CONFIG GET *",
        "CONFIG SET maxmemory 1",
        "SHUTDOWN NOSAVE",
        "REPLICAOF NO ONE",
        "ACL LIST",
        "MONITOR",
        "SAVE",
        "SWAPDB 0 1",
        "CLIENT KILL TYPE normal",
    ],
)
def test_the_programs_may_not_empty_list_configure_or_stop_redis(narrow_url: str, command: str) -> None:
    with redis.Redis.from_url(narrow_url) as client, pytest.raises(redis.exceptions.NoPermissionError):
        run(client, *command.split())


def test_the_programs_may_not_debug_redis(narrow_url: str, redis_client: redis.Redis) -> None:
    """Most servers refuse DEBUG to everybody, before they look at the rights of the user."""
    assert b"no permissions" in run(redis_client, "ACL", "DRYRUN", USER, "DEBUG", "JMAP")


def test_sketches_need_no_more_rights(narrow_url: str) -> None:
    with redis.Redis.from_url(narrow_url) as client:
        store = SketchStore(client, "narrow", seed=1, base_n_prime=1000, tau=10)
        chunks = ["0" * 64, "1" * 64]
        build = store.open_shadow("node", 1, 1000)
        store.fill_shadow("node", build, chunks)
        store.side_by_side("node", build)
        store.swap_shadow("node", build)
        assert store.update({"node": chunks}, remove={"node": chunks[:1]}) == set()
        assert store.lookup(["node"], chunks).counts.tolist() == [[1, 2]]
        assert set(store.snapshot(["node"]).sketches) == {"node"}
        store.discard_shadow("node", build)
        store.forget("node")


def test_wakeups_need_no_more_rights(narrow_url: str) -> None:
    with Celery(broker=broker_url(narrow_url)) as app:
        app.conf.update(broker_transport_options={"visibility_timeout": 60}, task_acks_late=True)
        app.send_task("storage.sweep", queue="narrow", retry=False)
        with app.connection_for_read() as connection:
            queue = connection.SimpleQueue("narrow")
            queue.get(timeout=5).ack()
            queue.clear()
            queue.close()


def test_the_service_needs_no_more_rights(narrow_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test does everything that the service itself does in Redis, through a connection with these rights."""
    monkeypatch.setattr(settings, "REDIS_URL", narrow_url)
    connect.cache_clear()
    rates._limiter.cache_clear()
    try:
        rates.take_login("192.0.2.1", "admin")
        counters.add(counters.Event.MISSES_REPORTED)
        counters.flush()
        assert counters.totals()["misses_reported"] == 1
        wakeups.hush(Queue.INGEST, 5)
        wakeups.taken(Queue.INGEST)
        assert not wakeups.listen(Queue.INGEST, 0.01)
        assert wakeups.await_change(uuid4(), 0.01) is None
        assert connect().ping()
    finally:
        connect().close()
        connect.cache_clear()
        rates._limiter.cache_clear()
