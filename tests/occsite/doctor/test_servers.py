"""The doctor's checks of PostgreSQL, Redis and the running programs.

The tests make each check fail, on real servers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from occsite.doctor import postgresql, programs, redis_server
from occsite.doctor.findings import Finding, Level
from occsite.signature import LONGEST, UNNAMED, Signature, signature
from storage.cluster import clocks
from storage.conf import VERSION, Configuration, Provider, configuration
from tests.support.cluster import ClusterUnderTest
from tests.support.pooler import pooler

pytestmark = pytest.mark.django_db(transaction=True)


def only(check: Callable[[], Iterable[Finding]]) -> Finding:
    (finding,) = check()
    return finding


@contextmanager
def sessions(*names: str) -> Iterator[None]:
    """Hold a session of PostgreSQL with each of these names during the ``with`` block."""
    parameters = connection.get_connection_params()
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(psycopg.connect(**{**parameters, "application_name": name}))
        yield


# -- PostgreSQL ----------------------------------------------------------------


def test_postgresql_tells_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(postgresql.version_is_known).level is Level.OK
    monkeypatch.setattr(postgresql, "OLDEST", 99)  # Every server counts as too old.
    assert "too old" in only(postgresql.version_is_known).found


def test_sessions_that_a_pooler_mixes_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(postgresql.sessions_are_own).level is Level.OK
    with pooler(tmp_path, "transaction") as parameters:
        monkeypatch.setattr(connection, "get_connection_params", lambda: parameters)
        finding = only(postgresql.sessions_are_own)
    assert finding.level is Level.PROBLEM
    assert finding.remedy == "connect DATABASE_URL to PostgreSQL itself"


def test_settings_that_lose_commits_are_problems() -> None:
    # The PostgreSQL server of the tests runs with fsync, full_page_writes and synchronous_commit off.
    found = list(postgresql.commits_are_durable())
    assert [finding.level for finding in found] == [Level.PROBLEM] * 3
    assert [finding.found.split()[0] for finding in found] == ["fsync", "full_page_writes", "synchronous_commit"]


@pytest.mark.parametrize(("share", "level"), [(0.82, Level.WARNING), (0.96, Level.PROBLEM)])
def test_connections_run_out(share: float, level: Level) -> None:
    before = only(postgresql.connections_are_left)
    assert before.level is Level.OK
    used, most = (int(word) for word in before.found.split() if word.isdigit())
    with sessions(*["another program"] * (round(share * most) - used)):
        assert only(postgresql.connections_are_left).level is level


def test_migrations_that_are_lacking_or_unknown_are_problems() -> None:
    assert only(postgresql.migrations_are_applied).level is Level.OK
    recorder = MigrationRecorder(connection)
    ((_, last),) = MigrationLoader(connection).graph.leaf_nodes("storage")
    recorder.record_unapplied("storage", last)
    recorder.record_applied("storage", "9999_of_a_later_version")
    try:
        lacking, unknown = postgresql.migrations_are_applied()
    finally:
        recorder.record_applied("storage", last)
        recorder.record_unapplied("storage", "9999_of_a_later_version")
    assert last in lacking.found
    assert "later version: it has 9999_of_a_later_version" in unknown.found
    assert lacking.level is unknown.level is Level.PROBLEM


# -- Redis -----------------------------------------------------------------


@contextmanager
def configured(client: redis.Redis, **values: str) -> Iterator[None]:
    """Change the configuration of the server during the ``with`` block."""
    before = {name: str(client.config_get(name)[name]) for name in values}
    for name, value in values.items():
        client.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)


def test_a_redis_that_keeps_everything_is_good(redis_client: redis.Redis) -> None:
    assert only(redis_server.keeps_what_it_is_given).level is Level.OK


def test_a_redis_that_evicts_is_a_problem(redis_client: redis.Redis) -> None:
    with configured(redis_client, **{"maxmemory-policy": "allkeys-lru"}):
        finding = only(redis_server.keeps_what_it_is_given)
    assert (finding.level, finding.remedy) == (Level.PROBLEM, "set maxmemory-policy noeviction")


def test_a_redis_that_is_nearly_full_or_keeps_nothing_is_told(redis_client: redis.Redis) -> None:
    used = int(redis_client.info()["used_memory"])
    with configured(redis_client, maxmemory=str(used + (used >> 5)), appendonly="no"):
        full, forgetful = redis_server.keeps_what_it_is_given()
    assert "of maxmemory is used" in full.found
    assert "keeps nothing on a disk" in forgetful.found
    assert full.level is forgetful.level is Level.WARNING


def test_a_redis_that_is_away_is_a_problem(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    finding = only(redis_server.keeps_what_it_is_given)
    assert finding.level is Level.PROBLEM
    assert "start it" in finding.remedy


# -- programs --------------------------------------------------------------


def test_names_of_sessions_fit_and_can_be_taken_apart() -> None:
    longest = signature("maintenance", configuration(), "a secret")
    assert len(longest) <= LONGEST
    parsed = Signature.parse(longest)
    assert parsed is not None
    assert (parsed.program, parsed.version, parsed.differences(parsed)) == ("maintenance", VERSION, [])
    assert Signature.parse("psql") is Signature.parse("occ backup") is None


def test_programs_that_lack_or_have_another_version_are_problems() -> None:
    mine = {name: signature(name, configuration(), django_settings.SECRET_KEY) for name in ("api", "worker")}
    with sessions(*mine.values(), mine["api"].replace(VERSION, "0.0.9")):
        missing, others = programs.versions_agree()
    assert missing.found == "not connected to PostgreSQL: maintenance"
    assert "api 0.0.9" in others.found
    assert missing.level is others.level is Level.PROBLEM


def test_programs_with_other_settings_are_told(cluster: ClusterUnderTest) -> None:
    assert only(programs.settings_agree).level is Level.OK
    conf = cluster.configuration
    # One of 64 secrets has the same short digest as the secret in use, so the doctor cannot name the difference.
    secret = next(text for text in map(str, count()) if told(conf, secret=text) == ["SECRET_KEY"])
    odd = signature("worker", dataclasses.replace(conf, chunk_size=1 << 20, auth_required=True), secret)
    with sessions(odd, signature("api", conf, django_settings.SECRET_KEY)):
        finding = only(programs.settings_agree)
    assert finding.level is Level.WARNING
    assert finding.found == "worker and this command differ in AUTH_REQUIRED, CHUNK_SIZE, SECRET_KEY"


def told(conf: Configuration, *, secret: str = "", **changes: Any) -> list[str]:
    """The settings that the doctor names as different if a process has these changes."""
    secret_key = django_settings.SECRET_KEY
    mine = Signature.parse(signature("api", conf, secret_key))
    theirs = Signature.parse(signature("api", dataclasses.replace(conf, **changes), secret or secret_key))
    assert mine is not None and theirs is not None
    return mine.differences(theirs)


def test_a_change_that_cannot_be_named_is_not_overlooked() -> None:
    """One of 64 changes cannot be named. One of 262,144 changes is overlooked: at most one of the 999 changes here."""
    conf = configuration()
    noticed = [told(conf, audit_rate=conf.audit_rate + number) for number in range(1, 1000)]
    named, unnamed = noticed.count(["AUDIT_RATE"]), noticed.count([UNNAMED])
    assert named + unnamed >= 998
    assert 0 < unnamed < 50


def test_another_secret_of_the_provider_is_noticed() -> None:
    conf = dataclasses.replace(
        configuration(), provider=Provider("https://login.example.org", "store", "old", "admins")
    )
    for number in range(10):
        changed = Provider("https://login.example.org", "store", f"new {number}", "admins")
        assert told(conf, provider=changed) in (["OIDC_CLIENT_SECRET"], [UNNAMED])


def test_settings_that_do_not_fit_the_cluster_are_told(cluster: ClusterUnderTest, settings: Any) -> None:
    settings.OCC = dataclasses.replace(cluster.configuration, replication_factor=9, tau=12, debug=True)
    factor, shape, debug = programs.settings_agree()
    assert (factor.level, factor.found) == (Level.PROBLEM, "REPLICATION_FACTOR is 9, and there are 5 nodes")
    assert "TAU 12" in shape.found
    assert "DEBUG" in debug.found


def test_clocks_that_differ_are_told(redis_client: redis.Redis) -> None:
    assert only(programs.clocks_agree).level is Level.OK
    # No clock is set here: a worker whose clock is an hour slow reports this value.
    redis_client.hset(clocks.KEY, "the ingest worker", "-3600.0")
    finding = only(programs.clocks_agree)
    assert finding.level is Level.WARNING
    assert "the ingest worker is -3600 s" in finding.found
