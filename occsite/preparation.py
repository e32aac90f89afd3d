"""From two servers, which may be empty, to databases and nodes that the programs can work on."""

from __future__ import annotations

import secrets
import time

import psycopg
import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import DatabaseError, connection

from occsite.secret import make_secret
from occsite.state import local_url, make_state_dir
from storage.conf import Configuration
from storage.exceptions import ConfigurationError
from storage.services.provision import provision

LIMIT = 60.0  # seconds for each part to come up
PAUSE = 0.1
MIGRATION_LOCK = 0x0CC5_7043  # several installations may share one server, and start at once
ADMIN = "admin"


def prepare(configuration: Configuration) -> None:
    """Wait for the databases, migrate, make the nodes that the environment asks for, and a first administrator, whose
    password is printed. Whatever is there already stays; running twice at once does no harm.

    Raises:
        ConfigurationError: a server does not answer, or the cluster does not fit the environment.
    """
    make_state_dir(configuration.storage_dir)
    make_secret(configuration.storage_dir)
    await_redis()
    with await_database() as lock:
        lock.execute("SET statement_timeout = 0")
        lock.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        try:
            call_command("migrate", interactive=False, verbosity=0)
        except DatabaseError as error:
            raise ConfigurationError(f"the database cannot be brought up to date: {in_a_line(error)}") from None
        provision(configuration)
        password = create_admin()
    if password:
        url = local_url(configuration.host, configuration.port)
        print(f"Administration: {url}/admin/ user {ADMIN}, password {password} (shown only this once)", flush=True)  # noqa: T201


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
                pause(deadline, "Redis", in_a_line(error))
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
            pause(deadline, "PostgreSQL", in_a_line(error))


def create_admin() -> str | None:
    """The password of the first administrator, or None if there is one already."""
    users = get_user_model()._default_manager
    if users.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(12)
    users.create_superuser(ADMIN, "", password)
    return password


def pause(deadline: float, part: str, reason: str) -> None:
    """Wait a moment before ``part`` is asked again.

    Raises:
        ConfigurationError: the deadline, on the monotonic clock, has passed.
    """
    if time.monotonic() > deadline:
        raise ConfigurationError(f"{part} did not come up within {LIMIT:.0f} s: {reason}")
    time.sleep(PAUSE)


def in_a_line(error: Exception) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
