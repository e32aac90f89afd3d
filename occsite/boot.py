"""From two empty databases to a system that serves: what ``boot`` does once in every run."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

import psycopg
import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import DatabaseError, connection

from occsite.programs import BACKGROUND, FOREGROUND, manager_proxy
from occsite.state import local_url
from storage.conf import Configuration
from storage.exceptions import ConfigurationError
from storage.services.provision import provision

LIMIT = 60.0  # seconds for each part to come up
PAUSE = 0.1
MIGRATION_LOCK = 0x0CC5_7043  # several installations may share one server, and start at once
ADMIN = "admin"


def boot(configuration: Configuration) -> None:
    """Bring the databases up to date, start the programs, wait until the API is ready, and say so.

    Raises:
        ConfigurationError: a part did not come up, or the cluster does not fit the environment.
    """
    await_redis()
    with await_database() as lock:
        lock.execute("SET statement_timeout = 0")
        lock.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        try:
            call_command("migrate", interactive=False, verbosity=0)
        except DatabaseError as error:
            raise ConfigurationError(f"the database cannot be brought up to date: {_line(error)}") from None
        provision(configuration)
        password = create_admin()
    url = local_url(configuration.host, configuration.port)
    if password:
        print(f"Administration: {url}/admin/ user {ADMIN}, password {password} (shown only this once)", flush=True)  # noqa: T201
    start_programs(configuration, FOREGROUND)
    await_api(url)
    start_programs(configuration, BACKGROUND)
    print(f"OCC Storage listens on {url} (Ctrl-C stops it, logs are in {configuration.storage_dir}/logs)", flush=True)  # noqa: T201


def await_redis() -> None:
    """Wait until Redis has loaded its data and answers.

    Raises:
        ConfigurationError: it does not.
    """
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=3, socket_connect_timeout=3)
    deadline = time.monotonic() + LIMIT
    with client:
        while True:
            try:
                client.ping()
            except redis.RedisError as error:
                _pause(deadline, "Redis", _line(error))
            else:
                return


def await_database() -> psycopg.Connection[tuple[object, ...]]:
    """A connection to PostgreSQL beside Django's own, as soon as it accepts one.

    Raises:
        ConfigurationError: it does not.
    """
    parameters = connection.get_connection_params()
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            return psycopg.connect(**parameters, autocommit=True)
        except psycopg.OperationalError as error:
            _pause(deadline, "PostgreSQL", _line(error))


def create_admin() -> str | None:
    """The password of the first administrator, or None if there is one already."""
    users = get_user_model()._default_manager
    if users.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(12)
    users.create_superuser(ADMIN, "", password)
    return password


def start_programs(configuration: Configuration, names: Iterable[str]) -> None:
    """Have the manager start programs that wait for boot."""
    manager = manager_proxy(configuration.storage_dir)
    for name in names:
        manager.supervisor.startProcess(f"application:{name}", False)


def await_api(url: str) -> None:
    """Wait until the API says that it is ready.

    Raises:
        ConfigurationError: it does not.
    """
    deadline = time.monotonic() + LIMIT
    while (answer := _health(url)) != "ready":
        _pause(deadline, "the API", answer)


def _health(url: str) -> str:
    """``ready``, or why not."""
    server = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        server.request("GET", "/health")
        response = server.getresponse()
        body = response.read()
        if response.status != 200:
            return f"/health answers {response.status}"
        return "ready" if json.loads(body).get("ready") is True else f"/health answers {body.decode()[:200]}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _line(error)
    finally:
        server.close()


def _pause(deadline: float, part: str, reason: str) -> None:
    if time.monotonic() > deadline:
        raise ConfigurationError(f"{part} did not come up within {LIMIT:.0f} s: {reason}")
    time.sleep(PAUSE)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
