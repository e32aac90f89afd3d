"""Where PostgreSQL and Redis are, in the words of those who connect to them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import environ

from storage.exceptions import ConfigurationError


def database_config(url: str) -> dict[str, Any]:
    """The entry of Django's DATABASES for a URL.

    Raises:
        ConfigurationError: it is not the URL of a PostgreSQL database.
    """
    # The value itself is not shown: it holds a password.
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
    """The URL, once it has been seen to be one that redis-py understands.

    Raises:
        ConfigurationError: it is not.
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
    """A redis-py URL in the words of kombu, which names the database of a Unix socket otherwise."""
    if not url.startswith("unix://"):
        return url
    return "redis+socket://" + url.removeprefix("unix://").replace("?db=", "?virtual_host=", 1)
