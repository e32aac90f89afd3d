"""The preparation of both databases, which may be empty, and of the nodes, before the programs can use them."""

from __future__ import annotations

import secrets
import time
from typing import Any

import psycopg
import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import DatabaseError, connection
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from occsite.launch.secret import make_secret
from occsite.launch.state import make_state_dir, require_whole
from occsite.postgresql import sessions
from storage.conf import Configuration
from storage.exceptions import ConfigurationError
from storage.models.locks import Lock
from storage.services.provision import provision

LIMIT = 60.0  # A program of this run has this many seconds to come up; the manager notices sooner if the program ends.
REACH_LIMIT = 6.0  # A server that runs elsewhere has this many seconds to answer; each attempt may take three.
PAUSE = 0.1
REMEDIES = {
    "PostgreSQL": "start it, or correct DATABASE_URL",
    "the API": "logs/api.log in STORAGE_DIR, or the lines above, may say why",
}
ADMIN = "admin"


def prepare(configuration: Configuration) -> str | None:
    """Wait for the databases, migrate, and make the nodes that the environment asks for and a first administrator.

    Existing nodes and administrators stay. Two runs at once do no harm.

    Returns:
        Words that show name and password of the new administrator; None if no administrator was made.

    Raises:
        ConfigurationError: PostgreSQL does not answer, or the cluster does not fit the environment.
    """
    make_state_dir(configuration.storage_dir)
    require_whole(configuration.storage_dir)
    try:
        make_secret(configuration.storage_dir)
    except OSError as error:
        raise ConfigurationError(f"STORAGE_DIR cannot be written: {error}; mend that and start again") from None
    await_redis(REACH_LIMIT if configuration.redis_url else LIMIT)
    with await_database(REACH_LIMIT if configuration.database_url else LIMIT) as lock:
        require_sessions()
        lock.execute("SET statement_timeout = 0")
        lock.execute("SELECT pg_advisory_lock(%s)", [Lock.MIGRATING.value])
        show_step("bringing the database up to date")
        try:
            call_command("migrate", interactive=False, verbosity=0)
        except DatabaseError as error:
            raise ConfigurationError(f"the database cannot be brought up to date: {in_a_line(error)}") from None
        provision(configuration)
        password = create_admin()
    return f"user {ADMIN}, password {password} (shown only this once)" if password else None


def await_redis(limit: float) -> None:
    """Wait until Redis has loaded its data and answers. Redis holds hints only: the start goes on without it.

    Args:
        limit: seconds to wait.

    Raises:
        ConfigurationError: Redis refuses the password.
    """
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=3, socket_connect_timeout=3)
    deadline = time.monotonic() + limit
    with client:
        while True:
            try:
                client.ping()
            except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
                raise ConfigurationError(f"Redis refuses REDIS_URL: {in_a_line(error)}; correct the password") from None
            except redis.RedisError as error:
                if time.monotonic() > deadline:
                    say(f"Redis does not serve: {in_a_line(error)}; the start goes on without it, see to REDIS_URL")
                    return
                time.sleep(PAUSE)
            else:
                return


def await_database(limit: float) -> psycopg.Connection[tuple[object, ...]]:
    """A connection to PostgreSQL next to Django's own, as soon as PostgreSQL accepts one.

    Args:
        limit: seconds to wait. The limit does not hold while the server answers that it is starting, as recovery after
            a crash may take long.

    Raises:
        ConfigurationError: PostgreSQL cannot be reached, or refuses.
    """
    parameters = connection.get_connection_params()
    deadline = time.monotonic() + limit
    said = False
    while True:
        try:
            return psycopg.connect(**parameters, autocommit=True)
        except psycopg.OperationalError as error:
            if _is_starting(parameters):
                if not said:
                    say(f"PostgreSQL is still starting: {in_a_line(error)}; waiting for it")
                said, deadline = True, time.monotonic() + limit
            pause(deadline, "PostgreSQL", in_a_line(error))


def _is_starting(parameters: dict[str, Any]) -> bool:
    """Tell whether PostgreSQL says that it accepts no connections yet (SQLSTATE 57P03), in any language."""
    ours = {name: value for name, value in parameters.items() if name in ("host", "port", "connect_timeout")}
    return PGconn.ping(make_conninfo(**ours).encode()) == Ping.REJECT


def require_sessions() -> None:
    """Make sure that each connection to PostgreSQL is a session of its own (RACES 40).

    Raises:
        ConfigurationError: a pooler stands in between, and mixes the sessions of its clients.
    """
    if flaw := sessions.flaw(connection.get_connection_params()):
        raise ConfigurationError(f"PostgreSQL cannot be used like this: {flaw}; {sessions.REMEDY}")


def create_admin() -> str | None:
    """Make the first administrator and return the password; None if there is an administrator already."""
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
        raise ConfigurationError(f"{part} cannot be reached: {reason}; {REMEDIES[part]}")
    time.sleep(PAUSE)


def in_a_line(error: Exception) -> str:
    """The message of an error, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def show_step(words: str) -> None:
    """Print on the terminal what the start does now."""
    print(words, flush=True)  # noqa: T201


def say(words: str) -> None:
    """Print a line on the terminal."""
    print(f"occ-storage: {words}", flush=True)  # noqa: T201
