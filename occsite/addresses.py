"""The URLs of PostgreSQL and Redis, in the forms that Django, redis-py and Celery understand."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import environ

from storage.exceptions import ConfigurationError


def database_config(url: str) -> dict[str, Any]:
    """The entry of Django's DATABASES for a URL.

    Raises:
        ConfigurationError: the URL is not that of a PostgreSQL database.
    """
    # The message does not show the URL, because it holds a password.
    refusal = ConfigurationError("DATABASE_URL is not of the form postgres://user:password@host:port/database")
    if environ.Env.DB_SCHEMES.get(url.partition(":")[0]) != "django.db.backends.postgresql":
        raise refusal
    try:
        config: dict[str, Any] = dict(environ.Env.db_url_config(url))
    except ValueError:
        raise refusal from None
    if not config["NAME"]:
        raise refusal
    return config


def redis_url(url: str) -> str:
    """Check that redis-py understands the URL, and return it.

    Raises:
        ConfigurationError: redis-py does not understand the URL.
    """
    try:
        parts = urlsplit(url)
        usable = bool(parts.path if parts.scheme == "unix" else parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("redis", "rediss", "unix"):
        raise ConfigurationError("REDIS_URL is not of the form redis://:password@host:port/0 or unix://:password@/path")
    return url


def broker_url(url: str) -> str:
    """The URL for kombu, which writes a Unix socket and the database on it in another way than redis-py."""
    if not url.startswith("unix://"):
        return url
    return "redis+socket://" + url.removeprefix("unix://").replace("?db=", "?virtual_host=", 1)
