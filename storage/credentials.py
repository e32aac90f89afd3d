"""Secrets from the environment: as values, or in files that variables such as ``SECRET_KEY_FILE`` name.

Docker and Kubernetes put secrets into files. A file is seen neither in ``docker inspect`` nor in ``/proc/PID/environ``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from storage.exceptions import ConfigurationError

SHORTEST_SECRET = 32  # characters: a SECRET_KEY below this length may be guessed


def credential(environment: Mapping[str, str], name: str) -> str | None:
    """The value of the variable ``name``, or the content of the file that the variable ``name``_FILE names.

    Returns:
        The value, or None if neither variable is set.

    Raises:
        ConfigurationError: both variables are set, or the file cannot be read, or it is empty.
    """
    value, path = environment.get(name) or None, environment.get(f"{name}_FILE") or None
    if path is None:
        return value
    if value is not None:
        raise ConfigurationError(f"{name} and {name}_FILE are both set; unset one of them")
    try:
        value = Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{name}_FILE={path!r} cannot be read: {error}") from None
    if not value:
        raise ConfigurationError(f"{name}_FILE={path!r} is empty")
    return value


def secret_key(environment: Mapping[str, str], *, debug: bool) -> str | None:
    """The SECRET_KEY from the environment; None if there is none.

    Raises:
        ConfigurationError: the key may be guessed, and this is no debug mode; or as for ``credential``.
    """
    key = credential(environment, "SECRET_KEY")
    if key is not None and not debug and can_be_guessed(key):
        raise ConfigurationError(
            f"SECRET_KEY can be guessed: it needs {SHORTEST_SECRET} random characters; "
            "unset it, and the first start makes one"
        )
    return key


def can_be_guessed(key: str) -> bool:
    """True if a SECRET_KEY is short, has few distinct characters, or is the one of a new Django project."""
    return len(key) < SHORTEST_SECRET or len(set(key)) < 8 or key.startswith("django-insecure-")


def url_with_password(environment: Mapping[str, str], name: str, password_name: str) -> str | None:
    """The URL of a server from the variable ``name``, with the password from ``password_name`` if the URL has none.

    Raises:
        ConfigurationError: as for ``credential``.
    """
    url, password = credential(environment, name), credential(environment, password_name)
    if url is None or password is None:
        return url
    try:
        parts = urlsplit(url)
        if parts.password is not None:
            return url
    except ValueError:
        return url  # The code that uses the URL refuses it with a better message.
    user, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user if at else ''}:{quote(password, safe='')}@{host}").geturl()
